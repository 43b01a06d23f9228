//! With a real redis-server, each test in a directory of its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Pid;

use super::*;

/// Longest that any condition is waited for; far beyond what it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tells the re-executed test binary which directory to run a Redis in.
const HELPER_VARIABLE: &str = "TOKEND_TEST_EMBEDDED_HELPER";

/// A directory of this test's own, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tokend-embedded-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings() -> Settings {
    Settings {
        search: std::env::var_os("PATH").unwrap_or_default(),
        lock_wait: PATIENCE,
    }
}

async fn start(directory: &Path) -> Embedded {
    Embedded::start_with(directory, settings())
        .await
        .expect("redis-server runs")
}

/// Sends one inline command and gives the first line of the answer.
fn ask(url: &str, command: &str) -> std::io::Result<String> {
    let socket = url.strip_prefix("redis+unix://").expect("a socket's URL");
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    // `$n` announces the value, which is the next line.
    if first.starts_with('$') && first != "$-1" {
        return lines.next().unwrap_or_else(|| Ok(String::new()));
    }
    Ok(first)
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn setting(url: &str, name: &str) -> String {
    let socket = url.strip_prefix("redis+unix://").expect("a socket's URL");
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream
        .write_all(format!("CONFIG GET {name}\r\n").as_bytes())
        .expect("it reads");
    // *2, $n, the name, $m, the value
    let lines = BufReader::new(stream).lines();
    lines.map_while(Result::ok).nth(4).unwrap_or_default()
}

#[tokio::test]
async fn data_survives_a_stop_and_a_start() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "SET kept 1").expect("an answer"), "+OK");
    redis.stop().await;
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "GET kept").expect("an answer"), "1");
    redis.stop().await;
}

#[tokio::test]
async fn it_runs_with_what_durability_and_events_need_and_is_closed_to_others() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    for (name, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("aof-load-truncated", "yes"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("port", "0"),
    ] {
        assert_eq!(setting(redis.url(), name), value, "{name}");
    }
    let flags = setting(redis.url(), "notify-keyspace-events");
    assert!(
        flags.contains('K') && flags.contains('x') && flags.len() == 2,
        "{flags}"
    );
    for path in ["", "redis.sock", "appendonlydir", "lock"] {
        let path = scratch.data().join(path);
        let mode = std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    redis.stop().await;
}

#[tokio::test]
async fn a_killed_redis_comes_back_with_its_data() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "SET kept 1").expect("an answer"), "+OK");
    let pid = redis.shared.pid().expect("it runs");
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    eventually("an answer from another process", || {
        redis.shared.pid().is_some_and(|new| new != pid)
            && ask(redis.url(), "GET kept").is_ok_and(|answer| answer == "1")
    });
    redis.stop().await;
}

#[tokio::test]
async fn a_file_cut_off_in_its_last_command_loads() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "SET kept 1").expect("an answer"), "+OK");
    redis.stop().await;
    let files =
        std::fs::read_dir(scratch.data().join("appendonlydir")).expect("the file's directory");
    let file = files
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .expect("the file of the latest writes");
    std::fs::OpenOptions::new()
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(b"*3\r\n$3\r\nSET\r\n$4\r\nto"))
        .expect("a writable file");
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "GET kept").expect("an answer"), "1");
    redis.stop().await;
}

#[tokio::test]
async fn a_second_one_on_the_same_directory_is_refused_with_the_holders_pid() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    let impatient = Settings {
        lock_wait: Duration::ZERO,
        ..settings()
    };
    let Err(error) = Embedded::start_with(&scratch.data(), impatient).await else {
        panic!("two tokends on one directory");
    };
    let text = error.to_string();
    assert!(matches!(error, StartError::InUse { .. }), "{text}");
    assert!(
        text.contains(&format!("pid {}", std::process::id())),
        "{text}"
    );
    redis.stop().await;
}

#[tokio::test]
async fn a_successor_waits_for_its_predecessor_to_end() {
    let scratch = Scratch::new();
    let redis = start(&scratch.data()).await;
    assert_eq!(ask(redis.url(), "SET kept 1").expect("an answer"), "+OK");
    let data = scratch.data();
    let successor = tokio::spawn(async move { start(&data).await });
    redis.stop().await;
    let redis = successor.await.expect("no panic");
    assert_eq!(ask(redis.url(), "GET kept").expect("an answer"), "1");
    redis.stop().await;
}

/// Runs itself again as another process, which starts a Redis and is then killed with SIGKILL.
#[tokio::test]
async fn a_process_that_is_killed_takes_its_redis_with_it() {
    if let Some(directory) = std::env::var_os(HELPER_VARIABLE) {
        let redis = start(Path::new(&directory)).await;
        assert_eq!(ask(redis.url(), "SET kept 1").expect("an answer"), "+OK");
        let pid = redis.shared.pid().expect("it runs");
        println!("redis {}", pid.as_raw_nonzero());
        std::future::pending::<()>().await;
    }
    let scratch = Scratch::new();
    let name = "embedded::tests::a_process_that_is_killed_takes_its_redis_with_it";
    let mut helper = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", name, "--nocapture"])
        .env(HELPER_VARIABLE, scratch.data())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let output = BufReader::new(helper.stdout.take().expect("piped"));
    let pid = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("redis ")?.1.trim().parse().ok())
        .and_then(Pid::from_raw)
        .expect("the helper's Redis");
    helper.kill().expect("it runs");
    helper.wait().expect("it was killed");
    // Whoever adopted it may leave it a zombie: what counts is that nobody serves any more and that
    // the lock is free, which needs both processes gone.
    let redis = start(&scratch.data()).await;
    assert_ne!(redis.shared.pid(), Some(pid));
    assert_eq!(ask(redis.url(), "GET kept").expect("an answer"), "1");
    redis.stop().await;
}

#[tokio::test]
async fn without_a_binary_the_message_says_what_to_do() {
    let scratch = Scratch::new();
    let nowhere = Settings {
        search: scratch.0.clone().into_os_string(),
        ..settings()
    };
    let Err(error) = Embedded::start_with(&scratch.data(), nowhere).await else {
        panic!("started without a binary");
    };
    let text = error.to_string();
    assert!(
        text.contains("apt-get install redis-server") && text.contains("REDIS_URL"),
        "{text}"
    );
    assert!(
        !scratch.data().exists(),
        "nothing is made before the binary is found"
    );
}

/// A search path with a `redis-server` that is this shell script. Another process writes the file: a
/// test that forks meanwhile would inherit our descriptor, and a file open for writing can't be run.
fn fake(scratch: &Scratch, script: &str) -> Settings {
    let written = Command::new("sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\n%s\\n' \"$1\" > redis-server && chmod 755 redis-server",
        ])
        .args(["sh", script])
        .current_dir(&scratch.0)
        .status()
        .expect("a shell");
    assert!(written.success());
    Settings {
        search: scratch.0.clone().into_os_string(),
        ..settings()
    }
}

#[tokio::test]
async fn an_old_redis_is_refused_by_its_version() {
    let scratch = Scratch::new();
    let old = fake(&scratch, "echo 'Redis server v=6.2.14 sha=0'");
    let Err(error) = Embedded::start_with(&scratch.data(), old).await else {
        panic!("started with an old Redis");
    };
    assert!(error.to_string().contains("6.2.14"), "{error}");
}

#[tokio::test]
async fn a_redis_that_ends_at_once_is_given_up_with_its_last_lines() {
    let scratch = Scratch::new();
    let broken = fake(
        &scratch,
        "[ \"$1\" = --version ] && exec echo 'Redis server v=7.0.0'\necho '1:M 01 Jan # no space left'; exit 3",
    );
    let Err(error) = Embedded::start_with(&scratch.data(), broken).await else {
        panic!("started with a broken Redis");
    };
    let text = error.to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("no space left"),
        "{text}"
    );
}

#[tokio::test]
async fn a_directory_with_a_long_or_odd_path_works_through_a_short_socket() {
    let scratch = Scratch::new();
    let data = scratch
        .data()
        .join(format!("with space {}", "x".repeat(120)));
    let redis = start(&data).await;
    assert!(redis.url().len() < 100, "{}", redis.url());
    assert_eq!(ask(redis.url(), "PING").expect("an answer"), "+PONG");
    let socket = PathBuf::from(redis.url().trim_start_matches("redis+unix://"));
    let parent = socket.parent().expect("a directory").to_owned();
    let mode = std::fs::metadata(&parent)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    redis.stop().await;
    assert!(!parent.exists(), "the socket's directory is tidied up");
}

//! One redis-server of our own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::ports::Port;
use super::resp::{self, Reply};
use super::{eventually, eventually_some, signal};

/// Arguments for a server that keeps what it acknowledged through a kill.
pub const APPEND_ONLY: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// A redis-server of our own on a free port, which ends with this process: its shell waits for our end
/// of a pipe to close.
pub struct OwnRedis {
    pub url: String,
    pub port: u16,
    pub dir: PathBuf,
    /// The program and all its arguments.
    command: Vec<String>,
    shell: Child,
    _claim: Port,
}

impl OwnRedis {
    /// `args` come behind the defaults: no persistence, no eviction. None if there is no such program here.
    pub async fn start(args: &[&str]) -> Option<Self> {
        let program = program()?;
        Some(Self::launch(|port, dir| server(&program, port, dir, args)).await)
    }

    /// The same under another program, such as one that makes its clock wrong.
    pub async fn start_under(wrapper: &[&str], args: &[&str]) -> Option<Self> {
        let program = program()?;
        let launched = Self::launch(|port, dir| {
            let wrapper = wrapper.iter().map(|&word| word.to_owned());
            wrapper.chain(server(&program, port, dir, args)).collect()
        });
        Some(launched.await)
    }

    /// A Sentinel. `config` is the text of its configuration, which it goes on writing itself.
    pub(super) async fn start_sentinel(program: &str, config: &str) -> Self {
        Self::launch(|port, dir| {
            let file = dir.join("sentinel.conf");
            let pid = dir.join("redis.pid");
            let own = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\npidfile {}\n",
                dir.display(),
                pid.display()
            );
            std::fs::write(&file, own + config).expect("a writable directory");
            let file = file.display().to_string();
            vec![program.to_owned(), file, "--sentinel".to_owned()]
        })
        .await
    }

    async fn launch(command: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let claim = Port::claim();
        let port = claim.number;
        let dir = std::env::temp_dir().join(format!("tokend-own-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let command = command(port, &dir);
        let redis = Self {
            url: format!("redis://127.0.0.1:{port}"),
            port,
            shell: run(&dir, &command),
            dir,
            command,
            _claim: claim,
        };
        redis.wait_until_up().await;
        redis
    }

    pub async fn wait_until_up(&self) {
        eventually("redis-server answers", async || {
            // NOAUTH is an answer too; LOADING is none yet.
            match self.command(&["PING"]).await {
                Ok(_) => true,
                Err(error) => error.starts_with("NOAUTH") || error.starts_with("NOPERM"),
            }
        })
        .await;
    }

    /// One command, on a connection of its own.
    ///
    /// # Errors
    ///
    /// In the server's own words, or what went wrong on the way.
    pub async fn command(&self, args: &[&str]) -> Result<Reply, String> {
        resp::command(self.port, args).await
    }

    /// The value of one line of INFO.
    pub async fn info(&self, section: &str, field: &str) -> Option<String> {
        let text = self.command(&["INFO", section]).await.ok()?.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(str::to_owned)
    }

    /// The server's process id, as it says itself.
    pub async fn pid(&self) -> u32 {
        let file = self.dir.join("redis.pid");
        // It listens a moment before it writes the file, whose end is a line's end.
        eventually_some("redis-server tells its pid", async || {
            let text = std::fs::read_to_string(&file).ok()?;
            text.strip_suffix('\n')?.parse().ok()
        })
        .await
    }

    /// The process id of the shell that ends the server with us.
    pub fn shell_pid(&self) -> u32 {
        self.shell.id()
    }

    /// Stops it in its tracks: it keeps its connections and answers nothing.
    pub async fn pause(&self) {
        signal(self.pid().await, "STOP");
    }

    pub async fn resume(&self) {
        signal(self.pid().await, "CONT");
    }

    /// kill -9, and wait until it is gone.
    pub async fn kill(&mut self) {
        let pid = self.pid().await;
        signal(pid, "KILL");
        eventually("redis-server is dead", async || {
            !Path::new(&format!("/proc/{pid}")).exists()
                || std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| stat.contains(") Z "))
        })
        .await;
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let _ = std::fs::remove_file(self.dir.join("redis.pid"));
    }

    /// Starts it again on the same port and directory, with these arguments.
    pub async fn restart(&mut self, args: &[&str]) {
        self.command = server(&self.command[0], self.port, &self.dir, args);
        self.start_again().await;
    }

    /// Starts it again as it was started.
    pub async fn start_again(&mut self) {
        self.shell = run(&self.dir, &self.command);
        self.wait_until_up().await;
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The server that tests start, if there is one on this machine.
pub(super) fn program() -> Option<String> {
    let named = std::env::var("TOKEND_TEST_SERVER").ok();
    let candidates = match &named {
        Some(program) => vec![program.as_str()],
        None => vec!["redis-server", "valkey-server"],
    };
    let found = candidates
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok());
    assert!(
        found.is_some() || named.is_none(),
        "TOKEND_TEST_SERVER: no such program: {named:?}"
    );
    found.map(str::to_owned)
}

/// How a server is started: no persistence, no eviction, unless `args` say otherwise.
fn server(program: &str, port: u16, dir: &Path, args: &[&str]) -> Vec<String> {
    let (port, pid) = (port.to_string(), dir.join("redis.pid"));
    let (dir, pid) = (dir.to_string_lossy(), pid.to_string_lossy());
    let own = ["--port", &port, "--bind", "127.0.0.1"];
    let place = ["--dir", &dir, "--pidfile", &pid];
    let defaults = ["--save", "", "--appendonly", "no", "--loglevel", "warning"];
    let all = [&[program], &own[..], &place, &defaults, args].concat();
    all.into_iter().map(str::to_owned).collect()
}

/// Its shell ends it when our end of the pipe closes, which it does however we end, and removes what it left. What
/// ends us with our whole process group, as Ctrl-C does, must not end the shell before that.
fn run(dir: &Path, command: &[String]) -> Child {
    let script = r#"trap '' TERM INT HUP QUIT
        "$@" >"$0/log" 2>&1 & pid=$!; read -r _; kill -9 $pid; wait $pid; rm -rf "$0""#;
    Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}

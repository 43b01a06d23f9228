//! The thread that runs Redis: spawn, wait until it answers, wait until it ends, start it again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::{oneshot, watch};

use super::directory::Directory;
use super::{Settings, StartError, binary};

/// Back-off between starts, doubled from the first to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A Redis that ran this long was healthy: the back-off begins anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Failures in a row at the very first start after which it is given up: it is a mistake of the
/// set-up, and whoever started tokend is still looking.
const FIRST_STARTS_MAX: u32 = 3;
/// How long a Redis that does not answer at all is waited for; also how long a start waits for one
/// that is loading its file before it lets the store answer 503 meanwhile.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often a starting Redis is asked.
const ANSWER_POLL: Duration = Duration::from_millis(10);
/// How long one answer to PING may take: Redis may be busy writing to a slow disk.
const PING_WAIT: Duration = Duration::from_secs(1);
/// Last lines of output that are kept to tell why Redis ended.
const LAST_LINES_MAX: usize = 12;
/// How long to wait for the rest of the output once Redis has ended: a child of Redis that rewrites
/// the file may hold the pipe open a little longer.
const OUTPUT_WAIT: Duration = Duration::from_millis(500);
/// Lines that Redis writes at every start or stop, whatever the log level: for `debug` alone. The one on
/// overcommit is long and comes each time; where a rewrite really fails for it, Redis says so then.
const CHATTER: [&str; 8] = [
    "oO0OoO0OoO0Oo",
    " version=",
    "Configuration loaded",
    "Server initialized",
    "Memory overcommit must be enabled",
    "Received SIGTERM",
    "User requested shutdown",
    "is now ready to exit",
];

/// What Redis is told, besides its paths.
const OPTIONS: [(&str, &str); 14] = [
    ("--port", "0"),
    ("--unixsocketperm", "700"),
    // Every acknowledged write is on disk, also while the file is being rewritten.
    ("--appendonly", "yes"),
    ("--appendfsync", "always"),
    ("--no-appendfsync-on-rewrite", "no"),
    // A last command cut off by a crash was never acknowledged: no reason not to start.
    ("--aof-load-truncated", "yes"),
    ("--auto-aof-rewrite-percentage", "100"),
    ("--auto-aof-rewrite-min-size", "64mb"),
    ("--save", ""),
    ("--maxmemory-policy", "noeviction"),
    // Keyspace events of expiries alone: what the alarms need.
    ("--notify-keyspace-events", "Kx"),
    // One tokend is its only client; the default of 10,000 asks for more open files than many systems
    // allow, and says so at every start.
    ("--maxclients", "500"),
    ("--daemonize", "no"),
    ("--loglevel", "warning"),
];

/// What the handle and the supervisor share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// Set while the process is there and not reaped, so that a signal never meets a stranger.
    pid: Option<Pid>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: watch::Sender::new(false),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the supervisor to end and signals the Redis that runs now.
    pub fn stop(&self, signal: Signal) {
        let mut state = self.state();
        state.stopping = true;
        self.changed.notify_all();
        if let Some(pid) = state.pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Turns true once Redis is gone for good.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Sleeps; true as soon as a stop is asked for.
    pub fn stop_asked_within(&self, wait: Duration) -> bool {
        let state = self.state();
        let wait = self
            .changed
            .wait_timeout_while(state, wait, |state| !state.stopping);
        wait.unwrap_or_else(PoisonError::into_inner).0.stopping
    }

    /// Registers a fresh process; one that was started into a stop is killed.
    fn born(&self, pid: Pid) {
        let mut state = self.state();
        state.pid = Some(pid);
        if state.stopping {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    #[cfg(test)]
    pub fn pid(&self) -> Option<Pid> {
        self.state().pid
    }
}

/// The thread's whole life. `told` hears once whether Redis runs, and where.
pub(super) fn run(
    data_dir: &Path,
    settings: &Settings,
    shared: &Shared,
    told: oneshot::Sender<Result<String, StartError>>,
) {
    let prepared = binary::find(&settings.search).and_then(|binary| {
        Ok((
            binary,
            Directory::open(data_dir, settings.lock_wait, shared)?,
        ))
    });
    match prepared {
        Ok((binary, directory)) => supervise(&Server { binary, directory }, shared, told),
        Err(error) => drop(told.send(Err(error))),
    }
    shared.ended.send_replace(true);
}

fn supervise(server: &Server, shared: &Shared, told: oneshot::Sender<Result<String, StartError>>) {
    let mut told = Some(told);
    let mut failures = 0;
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let why = match server.spawn(shared) {
            Ok(running) => {
                if running.answers(&server.directory.socket, shared)
                    && told
                        .take()
                        .is_some_and(|told| told.send(Ok(server.directory.url())).is_err())
                {
                    // Nobody waits for it any more.
                    shared.stop(Signal::KILL);
                }
                running.end(shared)
            }
            Err(error) => format!("{}: {error}", server.binary.display()),
        };
        if shared.stop_asked_within(Duration::ZERO) {
            return;
        }
        failures += 1;
        if failures >= FIRST_STARTS_MAX
            && let Some(told) = told.take()
        {
            let _ = told.send(Err(StartError::Failed(why)));
            return;
        }
        if began.elapsed() >= HEALTHY_AFTER {
            backoff = BACKOFF_MIN;
        }
        tracing::error!("redis-server is gone, starting it again in {backoff:?}: {why}");
        if shared.stop_asked_within(backoff) {
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// What is run.
struct Server {
    binary: PathBuf,
    directory: Directory,
}

impl Server {
    fn spawn(&self, shared: &Shared) -> std::io::Result<Running> {
        let (output, writer) = std::io::pipe()?;
        let mut command = Command::new(&self.binary);
        command
            .args(OPTIONS.iter().flat_map(|(name, value)| [name, value]))
            .arg("--unixsocket")
            .arg(&self.directory.socket)
            .arg("--dir")
            .arg(&self.directory.path)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            // Ctrl-C is for tokend, which stops Redis last.
            .process_group(0);
        tie_to_this_process(&mut command, self.directory.lock.try_clone()?);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        shared.born(pid);
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let (end_of_output, output_ended) = mpsc::channel();
        let lines = Arc::clone(&last_lines);
        std::thread::spawn(move || {
            log_output(output, &lines);
            drop(end_of_output);
        });
        Ok(Running {
            child,
            pid,
            last_lines,
            output_ended,
        })
    }
}

/// Lets the child keep the lock and die with its parent, and closes what it writes to other users.
#[allow(unsafe_code)] // nothing safe runs code between fork and exec
fn tie_to_this_process(command: &mut Command, lock: File) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        // Redis keeps the lock for as long as it lives, even if tokend dies before it.
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then no signal will come.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed.
    // It makes bare system calls, none of which allocates or takes a lock.
    unsafe { command.pre_exec(in_child) };
}

/// Passes Redis's output on to our log and keeps its last lines.
fn log_output(output: PipeReader, last_lines: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // `1234:M 01 Jan 2026 00:00:00.000 # text`: our log has the time already.
        let text = line
            .split_once(" # ")
            .map_or(line.trim(), |(_, text)| text.trim());
        if text.is_empty() {
            continue;
        }
        if CHATTER.iter().any(|chatter| text.contains(chatter)) {
            tracing::debug!("redis-server: {text}");
            continue;
        }
        tracing::warn!("redis-server: {text}");
        let mut last = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        last.truncate(LAST_LINES_MAX - 1);
        last.push_front(text.to_owned());
    }
}

/// A Redis process that has not been reaped.
struct Running {
    child: Child,
    pid: Pid,
    /// The newest first.
    last_lines: Arc<Mutex<VecDeque<String>>>,
    /// Disconnected at the end of the output.
    output_ended: mpsc::Receiver<()>,
}

enum Answer {
    Pong,
    /// It reads its file.
    Loading,
    None,
}

impl Running {
    /// Waits until it answers; false if it ended, was asked to, or never answered (then it is killed).
    fn answers(&self, socket: &Path, shared: &Shared) -> bool {
        let began = Instant::now();
        loop {
            let answer = ping(socket).unwrap_or(Answer::None);
            let waited = began.elapsed();
            match answer {
                Answer::Pong => {
                    tracing::info!("redis-server (pid {}) answers after {waited:.0?}", self.pid);
                    return true;
                }
                Answer::Loading if waited >= ANSWER_WAIT => {
                    tracing::warn!("redis-server is still loading its data; not ready meanwhile");
                    return true;
                }
                Answer::None if waited >= ANSWER_WAIT => {
                    tracing::error!(
                        "redis-server did not answer within {ANSWER_WAIT:?}: killing it"
                    );
                    let _ = rustix::process::kill_process(self.pid, Signal::KILL);
                    return false;
                }
                _ if self.has_ended(WaitIdOptions::NOHANG) => return false,
                _ if shared.stop_asked_within(ANSWER_POLL) => return false,
                _ => {}
            }
        }
    }

    /// Whether it has ended; without NOHANG, waits for that. It stays a zombie, its pid not reused.
    fn has_ended(&self, how: WaitIdOptions) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | how;
        loop {
            match rustix::process::waitid(WaitId::Pid(self.pid), options) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return false,
                // An error says that there is no such child any more.
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }

    /// Waits for its end, reaps it and tells why it ended.
    fn end(mut self, shared: &Shared) -> String {
        self.has_ended(WaitIdOptions::empty());
        let mut state = shared.state();
        state.pid = None;
        let status = self.child.wait();
        drop(state);
        let _ = self.output_ended.recv_timeout(OUTPUT_WAIT);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let last = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = last.iter().rev().map(String::as_str).collect();
        if lines.is_empty() {
            return status;
        }
        format!("{status}; its last lines: {}", lines.join(" | "))
    }
}

/// One PING over a connection of its own.
fn ping(socket: &Path) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PING_WAIT))?;
    stream.set_write_timeout(Some(PING_WAIT))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(match &answer {
        b"+PONG\r\n" => Answer::Pong,
        b"-LOADIN" => Answer::Loading,
        _ => Answer::None,
    })
}

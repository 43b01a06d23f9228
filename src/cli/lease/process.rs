//! COMMAND: how it is started, signalled and waited for.
//!
//! **Process group.** With a controlling terminal COMMAND stays in our group, else it could not
//! read from the terminal, `^Z` would stop only one of us, and `| less` would break. Without one
//! (cron, CI, containers, services) it leads a group of its own and signals go to the whole group,
//! so that the children of a shell script end together with it. `timeout` of the GNU coreutils
//! makes the same distinction with `--foreground`.
//!
//! **`^C` and `^\`.** The terminal sends these to every process of its foreground group: to us and
//! to COMMAND. Passing them on would deliver them twice, and many programs take the second as
//! "quit without cleaning up". So while our group is in the terminal's foreground SIGINT and
//! SIGQUIT are left to the terminal. The price: `kill -INT` from elsewhere at such a process is not
//! passed on; SIGTERM always is.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::cli::error::Failure;

/// COMMAND was found but cannot be run; the shells' convention, as are the next two.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_SIGNAL_BASE: u8 = 128;

/// What is passed on to COMMAND.
const FORWARDED: [Signal; 6] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// The signals that we are sent, instead of their usual effect.
pub struct SignalStream(Vec<(Signal, Stream)>);

impl SignalStream {
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let streams = FORWARDED.map(|each| {
            let stream = signal(SignalKind::from_raw(each.as_raw()))?;
            Ok((each, stream))
        });
        streams.into_iter().collect::<io::Result<_>>().map(Self)
    }

    /// The next signal. Dropping the future loses none.
    pub async fn recv(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// A signal that has come already.
    pub async fn pending(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = self.recv() => Some(signal),
            () = tokio::task::yield_now() => None,
        }
    }
}

/// COMMAND while it runs.
pub struct Running {
    child: Child,
    pid: Pid,
    terminal: Option<File>,
}

impl Running {
    /// Starts COMMAND. Call it on a thread that lives as long as COMMAND may: see below.
    ///
    /// # Errors
    /// With exit code 127 when it was not found, 126 when it cannot be run.
    pub fn start(command: &[OsString], environment: &[(&str, &str)]) -> Result<Self, Failure> {
        let (program, args) = command
            .split_first()
            .ok_or_else(|| Failure::usage("no command given"))?;
        // Only processes that have a controlling terminal can open this.
        let terminal = File::open("/dev/tty").ok();
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(environment.iter().copied())
            .kill_on_drop(true);
        if terminal.is_none() {
            command.process_group(0);
        }
        die_with_parent(&mut command);
        let child = command
            .spawn()
            .map_err(|error| not_started(program, &error))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| Failure::usage("the command has no process id"))?;
        Ok(Self {
            child,
            pid,
            terminal,
        })
    }

    /// Waits for COMMAND's end. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> ExitStatus {
        // Only fails when somebody else reaped our child, which nobody does: count it as killed.
        self.child
            .wait()
            .await
            .unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()))
    }

    /// Sends a signal of our own.
    pub fn signal(&self, signal: Signal) {
        // After the child was reaped its number may be another process's.
        if self.child.id().is_none() {
            return;
        }
        // It may have ended this very moment: then there is nobody left to signal.
        let _ = if self.leads_group() {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
    }

    /// Passes on a signal that we were sent, unless the terminal has done so already.
    pub fn forward(&self, signal: Signal) {
        let typed = matches!(signal, Signal::INT | Signal::QUIT);
        if !(typed && self.in_foreground()) {
            self.signal(signal);
        }
    }

    /// Ends what COMMAND left behind in its group. For use right after [`Self::wait`].
    pub fn kill_rest(&self) {
        if self.leads_group() {
            // While a process of the group lives, its number is not given to another group.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn leads_group(&self) -> bool {
        self.terminal.is_none()
    }

    fn in_foreground(&self) -> bool {
        let foreground = self.terminal.as_ref().map(rustix::termios::tcgetpgrp);
        foreground.is_some_and(|group| group.is_ok_and(|group| group == getpgrp()))
    }
}

/// Makes the kernel send COMMAND a SIGTERM when we die, even by SIGKILL: nobody would keep its
/// lease alive. The kernel ties this to the *thread* that started COMMAND, so that must be the one
/// that lives on (here: the main thread, on which the runtime runs).
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe
    // calls are allowed. It makes two bare system calls (prctl, getppid), allocates nothing and
    // takes no lock; `parent` is a copied number.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            // We may have died before that call; then no signal will come.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from(rustix::io::Errno::SRCH))
            }
        });
    }
}

/// Other systems have no such thing; there COMMAND outlives a SIGKILL of ours.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with_parent(_command: &mut Command) {}

fn not_started(program: &OsString, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound {
        EXIT_NOT_FOUND
    } else {
        EXIT_NOT_EXECUTABLE
    };
    let name = program.to_string_lossy();
    Failure {
        message: crate::cli::output::one_line(&format!("cannot run {name}: {error}")),
        code,
    }
}

/// COMMAND's own code, or 128+n when signal n ended it.
pub fn code_of(status: ExitStatus) -> u8 {
    let raw = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => i32::from(EXIT_SIGNAL_BASE) + signal,
        (None, None) => i32::from(u8::MAX),
    };
    u8::try_from(raw).unwrap_or(u8::MAX)
}

/// The exit code of one who ends because of a signal.
pub fn code_of_signal(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).map_or(u8::MAX, |n| EXIT_SIGNAL_BASE.saturating_add(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_passed_through_and_signals_counted_from_128() {
        assert_eq!(code_of(ExitStatus::from_raw(0)), 0);
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code_of(ExitStatus::from_raw(255 << 8)), 255);
        assert_eq!(code_of(ExitStatus::from_raw(15)), 143);
        assert_eq!(code_of_signal(Signal::INT), 130);
    }
}

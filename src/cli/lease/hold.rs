//! The loop that keeps a lease while COMMAND runs: [`Timing`] decides, this does.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::Lease;
use super::clock::Moment;
use super::process::{Running, SignalStream};
use super::timing::{Step, Timing};
use crate::cli::error::CallError;
use crate::cli::{duration, output};

/// The longest nap between two looks at the clock. Timers stand still while a laptop sleeps, so
/// this is how soon after waking up we notice that the lease is over.
const NAP_MAX: Duration = Duration::from_millis(250);

/// How COMMAND came to its end.
pub enum Ended {
    /// The lease was ours until the end, as far as we know.
    ByItself { status: ExitStatus, timing: Timing },
    /// The lease was lost; `still_ours` says that perhaps nobody took it yet.
    ByLoss { still_ours: bool },
}

/// Why a lease was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The service said that it is not ours.
    Told,
    /// It could not be confirmed before it ran out.
    Unconfirmed,
}

/// A keep-alive under way: what it was answered, and when it was sent.
type Renewal = JoinHandle<(Moment, Result<Option<f64>, CallError>)>;

/// Keeps the lease until COMMAND has ended, by itself or because the lease was lost.
pub async fn hold(
    lease: &Lease,
    mut timing: Timing,
    mut running: Running,
    signals: &mut SignalStream,
) -> Ended {
    let mut renewal: Option<Renewal> = None;
    let mut loss: Option<Loss> = None;
    let mut trouble: Option<CallError> = None;
    let status = loop {
        let now = Moment::now();
        let nap = match timing.step(now, renewal.is_some()) {
            Step::Wait(until) => until.since(now).min(NAP_MAX),
            Step::Rest => NAP_MAX,
            Step::Renew => {
                renewal = Some(renew(lease, timing));
                continue;
            }
            Step::Terminate => {
                output::say(&unconfirmed(timing.remaining(now), trouble.as_ref()));
                loss = Some(Loss::Unconfirmed);
                running.signal(Signal::TERM);
                timing = timing.ending(now);
                continue;
            }
            Step::Kill => {
                running.signal(Signal::KILL);
                timing = timing.killed();
                continue;
            }
        };
        tokio::select! {
            biased;
            status = running.wait() => break status,
            signal = signals.recv() => running.forward(signal),
            (sent, outcome) = finished(&mut renewal) => {
                renewal = None;
                match outcome {
                    Ok(Some(seconds)) => {
                        timing = timing.renewed(sent, duration::from_seconds(seconds));
                        trouble = None;
                    }
                    // A fence rules this out, but no answer without a lease may pass for one.
                    Ok(None) => (timing, loss) = lost(timing, &running, "it is not held"),
                    Err(error) if error.says_lost() => {
                        (timing, loss) = lost(timing, &running, &error.to_string());
                    }
                    Err(error) => {
                        timing = timing.renewal_failed(Moment::now());
                        trouble = Some(error);
                    }
                }
            }
            () = tokio::time::sleep(nap) => {}
        }
    };
    if let Some(renewal) = renewal {
        renewal.abort();
    }
    match loss {
        None => Ended::ByItself { status, timing },
        Some(loss) => {
            // COMMAND had its chance to clean up; what it left behind must not go on either.
            running.kill_rest();
            Ended::ByLoss {
                still_ours: loss == Loss::Unconfirmed,
            }
        }
    }
}

/// Sends a keep-alive in a task of its own, so that signals and the clock are not kept waiting.
fn renew(lease: &Lease, timing: Timing) -> Renewal {
    let lease = lease.clone();
    let timeout = timing.attempt_timeout();
    tokio::spawn(async move {
        // Before the request: the lease's time may start as soon as it is on its way.
        let sent = Moment::now();
        let answer = lease
            .client
            .keep_alive(&lease.pool, &lease.request, timeout)
            .await;
        let outcome = answer.map(|answer| answer.value.lease());
        (sent, outcome)
    })
}

/// The end of the keep-alive under way; never, if there is none.
async fn finished(renewal: &mut Option<Renewal>) -> (Moment, Result<Option<f64>, CallError>) {
    let Some(task) = renewal else {
        return std::future::pending().await;
    };
    task.await.unwrap_or_else(|error| {
        let why = CallError::NoAnswer(error.to_string());
        (Moment::now(), Err(why))
    })
}

/// The service says that the lease is not ours: COMMAND has to end.
fn lost(timing: Timing, running: &Running, why: &str) -> (Timing, Option<Loss>) {
    output::say(&output::one_line(&format!("lease lost: {why}")));
    running.signal(Signal::TERM);
    (timing.ending(Moment::now()), Some(Loss::Told))
}

fn unconfirmed(left: Duration, trouble: Option<&CallError>) -> String {
    let why = trouble.map_or_else(
        || {
            "its pool lets nobody hold a token longer (max_hold), or this machine was asleep"
                .to_owned()
        },
        ToString::to_string,
    );
    let left = duration::human(left);
    output::one_line(&format!(
        "lease not confirmed, {left} before it ends: {why}; ending the command"
    ))
}

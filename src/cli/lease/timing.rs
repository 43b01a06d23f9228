//! When to renew a lease, when to give it up, and when to use force: a state machine without a
//! clock, a socket or a process of its own.
//!
//! ```text
//!   Held ── lost, or deadline - margin reached ──▶ Ending ── kill_at reached ──▶ Killed
//!    │ ▲                                           (SIGTERM sent)               (SIGKILL sent)
//!    └─┘ renewed: a new deadline
//! ```
//!
//! The deadline is when the lease may have lapsed **by our own clock**: the moment *before* the
//! request was sent plus the `expires_in` of its answer. The service's clock started later, so we
//! always stop sooner than it takes the token back. Where the service may have waited in between, that moment
//! is too early to be of use, and `acquire` asks again.

use std::time::Duration;

use super::clock::Moment;

/// A lease is renewed when this part of it has passed: two more tries fit before it ends.
const RENEW_PART: u32 = 3;
/// COMMAND is told to end at most this long before the lease ends, ...
const GRACE_MAX: Duration = Duration::from_secs(5);
/// ... and at most this part of the lease before.
const GRACE_PART: u32 = 3;
/// SIGKILL goes out this long before the deadline, so that the process is dead by then ...
const KILL_LEAD_MAX: Duration = Duration::from_millis(500);
/// ... or this part of the grace, where that is shorter.
const KILL_LEAD_PART: u32 = 4;
/// A failed renewal is tried again after this part of the lease, within the bounds below: often
/// enough to use the time that is left, not so often as to hammer a service that is down.
const RETRY_PART: u32 = 20;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// One renewal may take this part of the lease, within the bounds below: one that hangs must leave
/// time for another.
const ATTEMPT_PART: u32 = 6;
const ATTEMPT_MIN: Duration = Duration::from_millis(250);
const ATTEMPT_MAX: Duration = super::super::client::REQUEST_TIMEOUT;
/// A renewal whose deadline moved less than this part of the lease was held back by `max_hold`.
const HELD_BACK_PART: u32 = 10;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then.
    Wait(Moment),
    /// Send a keep-alive.
    Renew,
    /// The lease can no longer be confirmed in time: tell COMMAND to end.
    Terminate,
    /// Its grace is over.
    Kill,
    /// All is done that can be done: COMMAND's end is near.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held { renew_at: Moment },
    Ending { kill_at: Moment },
    Killed,
}

/// Where a lease stands in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From then on the token may be somebody else's.
    deadline: Moment,
    /// The lease's full length, which the margins are parts of.
    length: Duration,
    phase: Phase,
}

impl Timing {
    /// A lease whose request was sent at `sent` and whose answer said `expires_in`.
    #[must_use]
    pub fn granted(sent: Moment, expires_in: Duration) -> Self {
        Self {
            deadline: sent + expires_in,
            length: expires_in,
            phase: Phase::Held {
                renew_at: sent + expires_in / RENEW_PART,
            },
        }
    }

    /// A keep-alive sent at `sent` was answered with `expires_in`. Changes nothing once COMMAND
    /// has been told to end: there is no way back from a SIGTERM.
    #[must_use]
    pub fn renewed(self, sent: Moment, expires_in: Duration) -> Self {
        let Phase::Held { .. } = self.phase else {
            return self;
        };
        let next = Self::granted(sent, expires_in);
        // Near `max_hold` each answer is shorter than the last. The margins stay parts of the real
        // length, else they would shrink to nothing together with the lease.
        let moved = next.deadline.distance(self.deadline);
        if moved < self.length / HELD_BACK_PART {
            Self {
                length: self.length,
                ..next
            }
        } else {
            next
        }
    }

    /// A keep-alive failed, for a reason that may pass.
    #[must_use]
    pub fn renewal_failed(self, now: Moment) -> Self {
        let Phase::Held { .. } = self.phase else {
            return self;
        };
        let pause = (self.length / RETRY_PART).clamp(RETRY_MIN, RETRY_MAX);
        Self {
            phase: Phase::Held {
                renew_at: now + pause,
            },
            ..self
        }
    }

    /// COMMAND is told to end now, because the lease is lost or about to be.
    #[must_use]
    pub fn ending(self, now: Moment) -> Self {
        let Phase::Held { .. } = self.phase else {
            return self;
        };
        let lead = KILL_LEAD_MAX.min(self.grace() / KILL_LEAD_PART);
        let kill_at = (now + GRACE_MAX).min(self.deadline.before(lead));
        Self {
            phase: Phase::Ending { kill_at },
            ..self
        }
    }

    /// SIGKILL has been sent.
    #[must_use]
    pub fn killed(self) -> Self {
        Self {
            phase: Phase::Killed,
            ..self
        }
    }

    /// What is to be done at `now`; `renewing` says that a keep-alive is under way.
    #[must_use]
    pub fn step(self, now: Moment, renewing: bool) -> Step {
        let give_up_at = self.deadline.before(self.grace());
        match self.phase {
            Phase::Held { .. } if now >= give_up_at => Step::Terminate,
            Phase::Held { .. } if renewing => Step::Wait(give_up_at),
            Phase::Held { renew_at } if now >= renew_at => Step::Renew,
            Phase::Held { renew_at } => Step::Wait(renew_at.min(give_up_at)),
            Phase::Ending { kill_at } if now >= kill_at => Step::Kill,
            Phase::Ending { kill_at } => Step::Wait(kill_at),
            Phase::Killed => Step::Rest,
        }
    }

    /// How long one keep-alive may take.
    #[must_use]
    pub fn attempt_timeout(self) -> Duration {
        (self.length / ATTEMPT_PART).clamp(ATTEMPT_MIN, ATTEMPT_MAX)
    }

    /// What is left of the lease.
    #[must_use]
    pub fn remaining(self, now: Moment) -> Duration {
        self.deadline.since(now)
    }

    /// How long before the deadline COMMAND is told to end.
    fn grace(self) -> Duration {
        GRACE_MAX.min(self.length / GRACE_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::at_ms(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn minute() -> Timing {
        Timing::granted(at(0), ms(60_000))
    }

    #[test]
    fn a_lease_is_renewed_at_a_third_and_again_a_third_after_that() {
        assert_eq!(minute().step(at(0), false), Step::Wait(at(20_000)));
        assert_eq!(minute().step(at(20_000), false), Step::Renew);
        let renewed = minute().renewed(at(20_000), ms(60_000));
        assert_eq!(renewed.step(at(20_100), false), Step::Wait(at(40_000)));
        assert_eq!(renewed.remaining(at(20_100)), ms(59_900));
    }

    #[test]
    fn the_deadline_counts_from_before_the_request_not_from_its_answer() {
        // Sent at 20 s, answered at 29 s: the lease ends at 80 s, not at 89 s.
        let renewed = minute().renewed(at(20_000), ms(60_000));
        assert_eq!(renewed.remaining(at(29_000)), ms(51_000));
    }

    #[test]
    fn a_failure_is_retried_soon_until_the_margin_before_the_deadline() {
        let failed = minute().renewal_failed(at(21_000));
        assert_eq!(failed.step(at(21_000), false), Step::Wait(at(22_000)));
        assert_eq!(failed.step(at(22_000), false), Step::Renew);
        let late = minute().renewal_failed(at(54_500));
        assert_eq!(late.step(at(54_500), false), Step::Wait(at(55_000)));
        assert_eq!(late.step(at(55_000), false), Step::Terminate);
    }

    #[test]
    fn an_attempt_under_way_does_not_put_off_the_end() {
        assert_eq!(minute().step(at(30_000), true), Step::Wait(at(55_000)));
        assert_eq!(minute().step(at(55_000), true), Step::Terminate);
    }

    #[test]
    fn force_comes_before_the_deadline() {
        let ending = minute().ending(at(55_000));
        assert_eq!(ending.step(at(55_000), false), Step::Wait(at(59_500)));
        assert_eq!(ending.step(at(59_500), false), Step::Kill);
        assert_eq!(ending.killed().step(at(59_600), false), Step::Rest);
    }

    #[test]
    fn a_short_lease_keeps_its_margins_in_proportion() {
        let short = Timing::granted(at(0), ms(3_000));
        assert_eq!(short.step(at(1_999), true), Step::Wait(at(2_000)));
        assert_eq!(short.step(at(2_000), true), Step::Terminate);
        let ending = short.ending(at(2_000));
        assert_eq!(ending.step(at(2_000), false), Step::Wait(at(2_750)));
        assert_eq!(short.attempt_timeout(), ms(500));
    }

    #[test]
    fn a_lease_lost_early_leaves_the_full_grace() {
        let ending = minute().ending(at(10_000));
        assert_eq!(ending.step(at(10_000), false), Step::Wait(at(15_000)));
    }

    #[test]
    fn after_a_long_sleep_there_is_no_grace_left() {
        let hours_later = at(7_200_000);
        assert_eq!(minute().step(hours_later, false), Step::Terminate);
        assert_eq!(
            minute().ending(hours_later).step(hours_later, false),
            Step::Kill
        );
    }

    #[test]
    fn there_is_no_way_back_from_a_sigterm() {
        let ending = minute().ending(at(55_000));
        assert_eq!(ending.renewed(at(54_000), ms(60_000)), ending);
        assert_eq!(ending.renewal_failed(at(56_000)), ending);
        assert_eq!(ending.ending(at(58_000)), ending);
    }

    #[test]
    fn max_hold_ends_in_a_full_grace_after_a_bounded_number_of_renewals() {
        // The pool lets nobody hold longer than 70 s: answers shrink, the deadline stays.
        let (mut lease, mut now, mut renewals) = (minute(), at(0), 0);
        loop {
            match lease.step(now, false) {
                Step::Wait(until) => now = until,
                Step::Renew => {
                    let left = at(70_000).since(now).min(ms(60_000));
                    lease = lease.renewed(now, left);
                    renewals += 1;
                }
                other => {
                    assert_eq!(other, Step::Terminate);
                    break;
                }
            }
        }
        assert_eq!(now, at(65_000));
        assert!(renewals < 10, "{renewals}");
    }

    #[test]
    fn a_pool_whose_lifetime_was_cut_gets_margins_of_the_new_length() {
        let cut = minute().renewed(at(20_000), ms(3_000));
        assert_eq!(cut.step(at(20_000), false), Step::Wait(at(21_000)));
    }

    proptest::proptest! {
        #[test]
        fn whatever_happens_force_is_used_before_the_deadline(
            length in 1_000_u64..100_000,
            lost_at in 0_u64..200_000,
        ) {
            let lease = Timing::granted(at(0), ms(length));
            let ending = lease.ending(at(lost_at));
            if let Step::Wait(kill_at) = ending.step(at(lost_at), false) {
                proptest::prop_assert!(kill_at < at(length));
            } else {
                proptest::prop_assert!(lost_at * 10 > length * 8, "no grace while time was left");
            }
            // And whoever follows the steps starts to end with at least three quarters of the
            // margin before force.
            let Step::Wait(give_up_at) = lease.step(at(0), true) else {
                panic!("a new lease has time");
            };
            proptest::prop_assert_eq!(lease.step(give_up_at, true), Step::Terminate);
        }
    }
}

//! A clock that only goes forward and, on Linux, also counts the time a laptop slept.

use std::ops::Add;
use std::time::Duration;

/// A point in time of this machine's own clock. Never compared with another machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// `CLOCK_BOOTTIME`: unlike `CLOCK_MONOTONIC`, which `Instant` reads, it goes on during suspend.
    /// The lease goes on then too, so a clock that stood still would let a laptop that wakes up
    /// believe in a lease that ended hours ago.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[must_use]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    /// Where there is no such clock, the standard one.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[must_use]
    pub fn now() -> Self {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Self(START.elapsed())
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much sooner.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// How far apart the two are.
    #[must_use]
    pub fn distance(self, other: Self) -> Duration {
        self.0.abs_diff(other.0)
    }

    /// A moment for tests: so long after the clock's start.
    #[cfg(test)]
    pub fn at_ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

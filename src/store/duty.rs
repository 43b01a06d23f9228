//! Who sweeps which partition, so that replicas do not do each other's work.
//!
//! Each replica says a few times a second that it is alive (`beat.rs`), and hears which others are. All of them
//! reckon from that list, in the same way, whose each partition is. There is no lock and no lease on a partition:
//! sweeps are safe at any number, so a list that is out of date costs a sweep too many, or for a moment one too few,
//! and nothing else. A replica that does not know the list sweeps everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::debug;

use super::Inner;
use super::beat::beat;

/// How long a replica is alive after a beat. With the longest time between two beats it is what a death costs:
/// under a second.
pub(super) const ALIVE_MS: u64 = 600;
/// Longest time between two beats: at most one may be lost.
const BEAT_MS_MAX: u64 = 300;
/// A little of chance, so that replicas that were started in one instant do not beat in one.
const JITTER_MS: u64 = 100;
/// Longest that a stop waits until it has said so. Unsaid, it is found out within [`ALIVE_MS`].
const LEAVE_MS_MAX: u64 = 500;

/// What this replica knows of its own part.
#[derive(Debug, Clone)]
struct Known {
    /// Per partition, whether it is this replica's.
    mine: Vec<bool>,
    /// The replicas that are alive, this one included.
    alive: Vec<String>,
    /// Others count on it until then, and it on others.
    until: Instant,
}

impl Known {
    fn is_mine(&self, partition: usize) -> bool {
        Instant::now() >= self.until || self.mine.get(partition).is_none_or(|mine| *mine)
    }
}

/// Whether this replica is one of those that are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// It has never said that it is alive.
    Unsaid,
    Said,
    Left,
}

/// Which partitions this replica has to sweep.
pub(super) struct Duty {
    /// Another one for each start of a replica.
    replica: String,
    known: watch::Sender<Known>,
    /// Per partition, whether the last sweep of it failed.
    failing: Vec<AtomicBool>,
    /// Held while a beat is under way, so that none comes behind the word that it leaves.
    membership: Mutex<Membership>,
}

impl Duty {
    pub fn new(partitions: usize) -> Self {
        let known = Known {
            mine: Vec::new(),
            alive: Vec::new(),
            until: Instant::now(),
        };
        Self {
            replica: uuid::Uuid::new_v4().to_string(),
            known: watch::Sender::new(known),
            failing: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
            membership: Mutex::new(Membership::Unsaid),
        }
    }

    /// Whether this replica has to sweep the partition now.
    pub fn is_mine(&self, partition: usize) -> bool {
        self.known.borrow().is_mine(partition)
    }

    /// How many replicas are alive, this one included; 0 where it does not know.
    pub fn alive(&self) -> usize {
        let known = self.known.borrow();
        if Instant::now() < known.until {
            known.alive.len()
        } else {
            0
        }
    }

    /// The other replicas that are alive; `None` where it does not know.
    pub fn others(&self) -> Option<Vec<String>> {
        let known = self.known.borrow();
        let others = known.alive.iter().filter(|it| **it != self.replica);
        (Instant::now() < known.until).then(|| others.cloned().collect())
    }

    /// Waits while the partition is another one's.
    pub async fn until_mine(&self, partition: usize) {
        // What it can't sweep is not its fault any more.
        self.swept(partition, true);
        let mut news = self.known.subscribe();
        loop {
            let until = {
                let known = news.borrow_and_update();
                if known.is_mine(partition) {
                    return;
                }
                known.until
            };
            // Nothing new until then: the others are not known any more.
            let _ = tokio::time::timeout_at(until, news.changed()).await;
        }
    }

    /// What became of a sweep.
    pub fn swept(&self, partition: usize, well: bool) {
        self.failing[partition].store(!well, Ordering::Relaxed);
    }

    /// Whether it can do what others count on. One that reaches the key of the beats but not all of its partitions
    /// must leave them to others.
    fn is_able(&self) -> bool {
        !self.failing.iter().any(|it| it.load(Ordering::Relaxed))
    }

    fn learn(&self, alive: &[String], sent: Instant) {
        let partitions = 0..self.failing.len() as u64;
        let mine = |partition| owner(alive, partition) == Some(self.replica.as_str());
        self.known.send_replace(Known {
            mine: partitions.map(mine).collect(),
            alive: alive.to_vec(),
            // Counted from before it was sent, so that it is over for us before it is for the others.
            until: sent + Duration::from_millis(ALIVE_MS),
        });
    }
}

/// Beats until the store stops, or leaves.
pub(super) async fn keep_beating(inner: &Inner) {
    let duty = &inner.duty;
    let mut unsaid = true;
    while !inner.redis.stopping() {
        {
            let mut membership = duty.membership.lock().await;
            if *membership == Membership::Left {
                return;
            }
            if inner.prepared() && duty.is_able() {
                *membership = Membership::Said;
                let sent = Instant::now();
                let settings = if unsaid { inner.shared.text() } else { "" };
                match beat(inner, &duty.replica, false, settings).await {
                    Ok(heard) => {
                        // They are gone with the data of a Redis that has lost it.
                        unsaid = !unsaid && heard.new;
                        duty.learn(&heard.alive, sent);
                    }
                    Err(error) => debug!(%error, "beat failed"),
                }
            }
        }
        let wait = BEAT_MS_MAX - rand::rng().random_range(0..JITTER_MS);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// Tells the others that this replica leaves: they take its partitions at their next beat. Until it ends it goes on
/// sweeping, soon everything.
pub(super) async fn leave(inner: &Inner) {
    let leave = async {
        let mut membership = inner.duty.membership.lock().await;
        let before = std::mem::replace(&mut *membership, Membership::Left);
        if before == Membership::Said && inner.prepared() {
            let left = beat(inner, &inner.duty.replica, true, "").await;
            debug!(well = left.is_ok(), "left");
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(LEAVE_MS_MAX), leave).await;
}

/// The replica whose the partition is: the one with the highest hash of both (rendezvous hashing). One that comes or
/// goes moves no partition between the others.
fn owner(replicas: &[String], partition: u64) -> Option<&str> {
    let weighed = replicas.iter().map(|it| (weight(it, partition), it));
    weighed.max().map(|(_, replica)| replica.as_str())
}

/// Stable for all time: replicas of two versions that reckon differently might leave a partition to each other.
fn weight(replica: &str, partition: u64) -> u64 {
    let hash = Sha256::digest(format!("{replica} {partition}"));
    u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: u32) -> Vec<String> {
        (0..count).map(|n| format!("replica-{n}")).collect()
    }

    fn owners(replicas: &[String]) -> Vec<&str> {
        let owned = (0..1024).map(|partition| owner(replicas, partition));
        owned.map(|owner| owner.expect("somebody")).collect()
    }

    #[test]
    fn weights_never_change() {
        assert_eq!(weight("a", 0), 16_716_286_798_925_257_880);
    }

    #[test]
    fn the_order_of_the_replicas_does_not_matter_and_each_has_its_share() {
        let replicas = replicas(8);
        let mut turned = replicas.clone();
        turned.reverse();
        assert_eq!(owners(&replicas), owners(&turned));
        for replica in &replicas {
            let share = owners(&replicas).iter().filter(|it| *it == replica).count();
            assert!((64..256).contains(&share), "{replica}: {share} of 1024");
        }
        assert_eq!(owner(&[], 0), None);
    }

    #[test]
    fn a_replica_that_goes_moves_nothing_between_the_others() {
        let before = replicas(8);
        let after = before[1..].to_vec();
        for (was, is) in owners(&before).into_iter().zip(owners(&after)) {
            assert!(was == is || was == before[0], "{was} to {is}");
        }
    }

    #[tokio::test]
    async fn what_is_known_is_forgotten_when_its_time_is_up() {
        let duty = Duty::new(4);
        let all_mine = || (0..4).all(|partition| duty.is_mine(partition));
        assert!(all_mine());
        let another = ["another".to_owned()];
        let to_come = Instant::now() + Duration::from_secs(3_600);
        duty.learn(&another, to_come);
        assert!(!(0..4).any(|partition| duty.is_mine(partition)));
        assert_eq!(duty.alive(), 1);
        duty.learn(std::slice::from_ref(&duty.replica), to_come);
        assert!(all_mine());
        // It ends within the test: others count on us no longer.
        duty.learn(&another, Instant::now());
        duty.until_mine(2).await;
        assert!(all_mine());
        assert_eq!(duty.alive(), 0);
    }

    #[test]
    fn one_that_cannot_sweep_what_is_its_own_is_not_able() {
        let duty = Duty::new(2);
        assert!(duty.is_able());
        duty.swept(0, true);
        duty.swept(1, false);
        assert!(!duty.is_able());
        duty.swept(1, true);
        assert!(duty.is_able());
    }
}

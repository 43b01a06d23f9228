//! Passwords: hashed with Argon2id, verified off the async threads, and never more at once than is good for the machine.
//!
//! Verifying is slow on purpose, so it is what a flood of logins would choke on first: the queue is bounded, and
//! whoever finds it full is told so at once. An unknown user costs the same work as a known one.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory, passes and lanes that OWASP's Password Storage Cheat Sheet asks for at least: 19 MiB, 2, 1.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Longest password: nobody types more, and hashing it is work that the caller does not do.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// bcrypt sees no more bytes of a password than these.
const BCRYPT_BYTES_MAX: usize = 72;
/// Most rounds of an imported hash, as a power of two: a quarter of a second of one core. More, and a
/// few requests would keep everybody else from logging in.
pub const BCRYPT_COST_MAX: u32 = 12;
/// How bcrypt hashes begin. `$2x$` is the mark of a broken implementation.
const BCRYPT_MARKS: [&str; 3] = ["$2a$", "$2b$", "$2y$"];
/// Logins that may wait, for each that is being verified: a second's worth at 30 ms each.
const WAITING_PER_TURN: usize = 32;
/// Longest that a login waits for its turn: with what comes before and behind it, an answer within 2 s.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// What is verified against where there is no user: the hash of nothing, with the parameters above.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static ARGON2: LazyLock<Argon2<'static>> = LazyLock::new(|| {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
});

/// A password that could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("the password could not be hashed: {0}")]
pub struct HashFailed(String);

/// A new hash, in the PHC form. Slow: not for async threads.
///
/// # Errors
/// When there is no memory or no randomness.
pub fn hash(password: &str) -> Result<String, HashFailed> {
    let hashed = ARGON2.hash_password(password.as_bytes());
    let hashed = hashed.map_err(|error| HashFailed(error.to_string()))?;
    Ok(hashed.to_string())
}

/// The cost of a bcrypt hash, if it is one that can be verified.
#[must_use]
pub fn bcrypt_cost(hash: &str) -> Option<u32> {
    let marked = BCRYPT_MARKS.iter().any(|mark| hash.starts_with(mark));
    let parts: bcrypt::HashParts = hash.parse().ok().filter(|_| marked)?;
    Some(parts.get_cost())
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right {
        /// A new hash, where the stored one is weaker than new ones are.
        rehash: Option<String>,
    },
}

/// Too many logins at once: to be answered with 503 and `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct Busy;

/// Verifies passwords, for all threads of the service together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// One place for each login that is verified or waits.
    places: Arc<Semaphore>,
    /// One turn for each that is verified.
    turns: Arc<Semaphore>,
    /// As many as have ever been verified at once.
    memories: Arc<Memories>,
}

/// What hashes are computed in: 19 MiB each, made when first needed and kept. An allocator that has to find such a
/// piece for each login finds it among the smaller ones that came meanwhile: a burst of logins cost a gigabyte.
#[derive(Debug, Default)]
struct Memories(Mutex<Vec<Vec<Block>>>);

impl Memories {
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with one that nobody else uses.
    fn with<T>(&self, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let kept = self.kept().pop();
        let mut memory =
            kept.unwrap_or_else(|| vec![Block::default(); ARGON2.params().block_count()]);
        let done = work(&mut memory);
        self.kept().push(memory);
        done
    }
}

impl Passwords {
    /// Verifies so many at once. Each takes a core for as long, and 19 MiB.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self::with(at_once, at_once * WAITING_PER_TURN)
    }

    fn with(at_once: usize, waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once + waiting)),
            turns: Arc::new(Semaphore::new(at_once)),
            memories: Arc::default(),
        }
    }

    /// Whether this is the password of that hash; `None`: of nobody, which takes as long and is wrong.
    ///
    /// # Errors
    /// When too many wait already, or this one's turn does not come in time.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<Verdict, Busy> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Busy)?;
        let turn = tokio::time::timeout(WAIT_MAX, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Busy);
        };
        // Held by the work, which goes on even if the caller has gone.
        let held: [OwnedSemaphorePermit; 2] = [place, turn];
        let memories = self.memories.clone();
        let work = tokio::task::spawn_blocking(move || {
            let verdict = memories.with(|memory| verify(&password, hash.as_deref(), memory));
            drop(held);
            verdict
        });
        work.await.or_else(|error| {
            tracing::error!("verifying a password: {error}");
            Ok(Verdict::Wrong)
        })
    }
}

fn verify(password: &str, hash: Option<&str>, memory: &mut [Block]) -> Verdict {
    let hash = hash.filter(|_| password.len() <= PASSWORD_BYTES_MAX);
    match hash {
        Some(hash) if bcrypt_cost(hash).is_some() => verify_bcrypt(password, hash, memory),
        Some(hash) => verify_argon2(password, hash, memory).unwrap_or_else(|| {
            tracing::error!("a user's password hash can't be read: set the password again");
            as_nobody(password, memory)
        }),
        None => as_nobody(password, memory),
    }
}

/// The work of a verification, for nothing.
fn as_nobody(password: &str, memory: &mut [Block]) -> Verdict {
    let shown = &password.as_bytes()[..password.len().min(PASSWORD_BYTES_MAX)];
    if let Ok(nobody) = PasswordHash::new(NOBODY) {
        let _ = matches(shown, &nobody, memory);
    }
    Verdict::Wrong
}

/// Whether that is the password of the hash, by the hash's own parameters; compared in constant time.
fn matches(password: &[u8], stored: &PasswordHash, memory: &mut [Block]) -> bool {
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok();
    let version = stored.version.and_then(|it| Version::try_from(it).ok());
    let (Ok(params), Some(salt), Some(expected)) =
        (Params::try_from(stored), &stored.salt, &stored.hash)
    else {
        return false;
    };
    match (algorithm, version) {
        (Some(algorithm), Some(version)) if params.block_count() <= memory.len() => {
            let mut found = vec![0; expected.as_bytes().len()];
            let memory = &mut memory[..params.block_count()];
            Argon2::new(algorithm, version, params)
                .hash_password_into_with_memory(password, salt.as_ref(), &mut found, memory)
                .is_ok_and(|()| Output::new(&found).is_ok_and(|found| found == *expected))
        }
        // Ours are none of these: somebody asked for more memory than we do.
        _ => ARGON2.verify_password(password, stored).is_ok(),
    }
}

/// `None`: that is no hash.
fn verify_argon2(password: &str, hash: &str, memory: &mut [Block]) -> Option<Verdict> {
    let stored = PasswordHash::new(hash).ok()?;
    let params = Params::try_from(&stored).ok()?;
    // Its own parameters count, not those of the verifier.
    if !matches(password.as_bytes(), &stored, memory) {
        return Some(Verdict::Wrong);
    }
    let strong = stored.algorithm.as_str() == Algorithm::Argon2id.as_str()
        && stored.version == Some(Version::V0x13.into())
        && params.m_cost() >= MEMORY_KIB
        && params.t_cost() >= PASSES;
    Some(right(password, !strong))
}

fn verify_bcrypt(password: &str, hash: &str, memory: &mut [Block]) -> Verdict {
    if bcrypt_cost(hash).is_none_or(|cost| cost > BCRYPT_COST_MAX) {
        tracing::error!("a user's bcrypt hash costs too much to verify: set the password again");
        return as_nobody(password, memory);
    }
    if !bcrypt::verify(password, hash).unwrap_or(false) {
        return Verdict::Wrong;
    }
    // Of a longer one bcrypt has seen the beginning alone: who knows whether the rest is right.
    right(password, password.len() <= BCRYPT_BYTES_MAX)
}

fn right(password: &str, rehash: bool) -> Verdict {
    let rehash = rehash.then(|| hash(password)).transpose();
    let rehash = rehash.unwrap_or_else(|error| {
        tracing::warn!("{error}"); // The old one does for now.
        None
    });
    Verdict::Right { rehash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(password: &str, hash: Option<&str>) -> Verdict {
        Memories::default().with(|memory| super::verify(password, hash, memory))
    }

    /// Cheap, for tests.
    fn weak(password: &str, algorithm: Algorithm) -> String {
        let params = Params::new(64, 1, 1, None).expect("within the limits");
        let argon2 = Argon2::new(algorithm, Version::V0x13, params);
        let hashed = argon2.hash_password(password.as_bytes());
        hashed.expect("hashed").to_string()
    }

    fn rehashed(verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::Right { rehash } => rehash,
            Verdict::Wrong => panic!("it is right"),
        }
    }

    #[test]
    fn a_new_hash_has_the_parameters_that_owasp_asks_for() {
        let hashed = hash("correct horse").expect("hashed");
        assert!(
            hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hashed}"
        );
        assert_eq!(rehashed(verify("correct horse", Some(&hashed))), None);
        assert_eq!(verify("correct horsf", Some(&hashed)), Verdict::Wrong);
        assert_eq!(verify("", Some(&hashed)), Verdict::Wrong);
    }

    #[test]
    fn nobodys_hash_costs_what_a_users_does() {
        let nobody = PasswordHash::new(NOBODY).expect("it parses");
        let params = Params::try_from(&nobody).expect("parameters");
        let ours = ARGON2.params();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (ours.m_cost(), ours.t_cost(), ours.p_cost())
        );
        assert!(nobody.salt.is_some() && nobody.hash.is_some());
        assert_eq!(verify("", None), Verdict::Wrong);
    }

    #[test]
    fn weaker_hashes_are_replaced_where_the_password_is_right() {
        for algorithm in [Algorithm::Argon2id, Algorithm::Argon2i] {
            let stored = weak("correct horse", algorithm);
            assert_eq!(verify("wrong", Some(&stored)), Verdict::Wrong);
            let new = rehashed(verify("correct horse", Some(&stored))).expect("a new hash");
            assert!(new.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new}");
        }
    }

    #[test]
    fn bcrypt_of_htpasswd_verifies_and_is_replaced() {
        let stored = bcrypt::hash("correct horse", 4).expect("hashed");
        for mark in BCRYPT_MARKS {
            let stored = stored.replacen("$2b$", mark, 1);
            assert_eq!(bcrypt_cost(&stored), Some(4), "{stored}");
            assert_eq!(verify("wrong", Some(&stored)), Verdict::Wrong);
            let new = rehashed(verify("correct horse", Some(&stored))).expect("a new hash");
            assert!(new.starts_with("$argon2id$"), "{new}");
        }
        let long = "x".repeat(80);
        let stored = bcrypt::hash(&long, 4).expect("hashed");
        assert_eq!(rehashed(verify(&long, Some(&stored))), None);
    }

    #[test]
    fn what_is_no_hash_is_wrong() {
        let bcrypt = bcrypt::hash("x", 4).expect("hashed");
        for stored in [
            "",
            "x",
            "plain",
            "$apr1$abc$def",
            "{SHA}abc",
            "$argon2id$v=19$m=19456,t=2,p=1$",
            "$argon2id$nothing",
            &bcrypt.replacen("$2b$", "$2x$", 1),
            &bcrypt.replacen("$04$", "$31$", 1),
            &bcrypt[..59],
        ] {
            assert_eq!(verify("x", Some(stored)), Verdict::Wrong, "{stored}");
        }
    }

    #[test]
    fn a_password_that_is_too_long_is_wrong_even_if_it_is_right() {
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        let stored = weak(&long, Algorithm::Argon2id);
        assert_eq!(verify(&long, Some(&stored)), Verdict::Wrong);
        let longest = &long[1..];
        let stored = weak(longest, Algorithm::Argon2id);
        assert_ne!(verify(longest, Some(&stored)), Verdict::Wrong);
    }

    #[tokio::test]
    async fn verifying_works_off_the_async_threads() {
        let passwords = Passwords::new(2);
        let stored = Some(weak("correct horse", Algorithm::Argon2id));
        let right = passwords.verify("correct horse".to_owned(), stored.clone());
        assert!(rehashed(right.await.expect("not busy")).is_some());
        let wrong = passwords.verify("wrong".to_owned(), stored);
        assert_eq!(wrong.await, Ok(Verdict::Wrong));
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once_and_a_turn_that_does_not_come_in_time_too() {
        let passwords = Passwords::with(1, 1);
        let stored = Some(weak("x", Algorithm::Argon2id));
        let verify = || passwords.verify("y".to_owned(), stored.clone());
        let turn = passwords.turns.clone().acquire_owned().await.expect("free");
        let place = passwords.places.clone().acquire_owned().await;
        // One waits in the last place, and its turn never comes; the next finds no place.
        let (first, second) = tokio::join!(biased; verify(), verify());
        assert_eq!((first, second), (Err(Busy), Err(Busy)));
        assert_eq!(
            passwords.places.available_permits(),
            1,
            "its place is free again"
        );
        drop((turn, place));
        assert_eq!(verify().await, Ok(Verdict::Wrong));
        assert_eq!(passwords.places.available_permits(), 2);
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let passwords = Passwords::with(2, 4);
        let stored = Some(weak("x", Algorithm::Argon2id));
        let turns = passwords.turns.clone().acquire_many_owned(2).await;
        let logins = (0..50).map(|_| passwords.verify("y".to_owned(), stored.clone()));
        let logins = futures_util::future::join_all(logins);
        let (answers, ()) = tokio::join!(biased; logins, async { drop(turns) });
        let count = |told: &_| answers.iter().filter(|it| *it == told).count();
        assert_eq!((count(&Ok(Verdict::Wrong)), count(&Err(Busy))), (6, 44));
        assert_eq!(passwords.places.available_permits(), 6);
    }
}

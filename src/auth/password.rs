//! Passwords: hashed with Argon2id, verified off the async threads, a bounded number at once.
//!
//! Verifying is slow on purpose, so a flood of logins would choke on it first: the queue is bounded, shared fairly
//! between client addresses (`turns`), and a login that finds it full fails at once. An unknown user costs the
//! same work as a known one.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use super::attempts::Site;
use super::precis;
pub use super::turns::Busy;
use super::turns::{Bounds, Turns};

/// Memory, passes and lanes that OWASP's Password Storage Cheat Sheet asks for at least: 19 MiB, 2, 1.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Longest password: nobody types more, and hashing it is work that the caller does not do.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Longest text whose form may be a password: composing shortens a text to a third at most.
const TYPED_BYTES_MAX: usize = 3 * PASSWORD_BYTES_MAX;
/// bcrypt sees this many bytes of a password.
const BCRYPT_BYTES_MAX: usize = 72;
/// Most rounds of an imported hash, as a power of two: a quarter of a second of one core. More, and a
/// few requests would keep everybody else from logging in.
pub const BCRYPT_COST_MAX: u32 = 12;
/// How bcrypt hashes begin. `$2x$` is the mark of a broken implementation.
const BCRYPT_MARKS: [&str; 3] = ["$2a$", "$2b$", "$2y$"];
/// Logins of one address that may wait, for each login that is being verified: a second's worth at 30 ms each.
const WAITING_PER_TURN: usize = 32;
/// How many times as many may wait over all addresses. They cost memory only: a caller leaves after [`WAIT_MAX`].
const CROWDS: usize = 8;
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

/// Verifies passwords, for all threads of the service together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// One turn for each login that is verified.
    turns: Turns,
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

    fn with(at_once: usize, per_site: usize) -> Self {
        Self {
            turns: Turns::new(Bounds {
                at_once,
                per_site,
                in_all: per_site * CROWDS,
            }),
            memories: Arc::default(),
        }
    }

    /// Whether this is the password of that hash; `None`: of nobody, which takes as long and is wrong. Text in
    /// another form than a password's is verified in both, so that one hashed before there was a form is found.
    ///
    /// # Errors
    /// When too many wait already, or this one's turn does not come in time.
    pub async fn verify(
        &self,
        site: Site,
        password: String,
        hash: Option<String>,
    ) -> Result<Verdict, Busy> {
        let spellings = spellings(password);
        let turn = self.turns.take(site, WAIT_MAX).await?;
        let memories = self.memories.clone();
        let work = tokio::task::spawn_blocking(move || {
            let verify = |memory: &mut [Block]| {
                let mut verdicts = spellings
                    .iter()
                    .map(|password| verify(password, hash.as_deref(), memory));
                verdicts.find(|verdict| *verdict != Verdict::Wrong)
            };
            let verdict = memories.with(verify);
            // Kept until now by the work, which goes on even if the caller has gone.
            drop(turn);
            verdict.unwrap_or(Verdict::Wrong)
        });
        work.await.or_else(|error| {
            tracing::error!("verifying a password: {error}");
            Ok(Verdict::Wrong)
        })
    }
}

/// What is verified for a typed text: its form, and the text itself where that is another. How many these are
/// depends on the text alone, so the time does not tell whether there is such a user.
fn spellings(mut typed: String) -> Vec<String> {
    if typed.len() > TYPED_BYTES_MAX {
        // Too long in any form, and it may be a megabyte, which would be kept while it waits.
        typed.truncate(typed.floor_char_boundary(TYPED_BYTES_MAX));
        typed.shrink_to_fit();
        return vec![typed];
    }
    let mut spellings: Vec<_> = precis::password(&typed).into_iter().collect();
    spellings.push(typed);
    spellings.dedup();
    spellings
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
    right(password, bcrypt_sees_all(password))
}

/// Whether no other text has the same bcrypt hash. bcrypt sees 72 bytes, of which the last one is a NUL where the
/// text is shorter, and repeats them: `xy`, and `xy` with a NUL and `xy`, are one text to it. The hash of such a text
/// stays as it is: a new one would accept only what was typed, which need not be the password.
fn bcrypt_sees_all(password: &str) -> bool {
    password.len() < BCRYPT_BYTES_MAX && !password.contains('\0')
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
mod tests;

//! `DURABILITY` and what it takes.

use super::env::Env;
use super::{Reader, whole};
use crate::store::Durability;

/// Most replicas to wait for; no primary should have more.
const WAIT_REPLICAS_MAX: u32 = 10;
/// Longest wait for replicas, ms: with the call before it, it must fit into the second that a call may take.
const WAIT_TIMEOUT_MS_MAX: u64 = 800;

/// The wait is judged also where it is not used, so that a mistake in it is found before it matters.
pub(super) fn read(env: &Env, read: &mut Reader) -> Durability {
    let replicas = read.take("WAIT_REPLICAS", env.wait_replicas.clone(), 1, |text| {
        whole(text, 1, WAIT_REPLICAS_MAX)
    });
    let timeout_ms = read.take(
        "WAIT_TIMEOUT_MS",
        env.wait_timeout_ms.clone(),
        500,
        |text| whole(text, 1, WAIT_TIMEOUT_MS_MAX),
    );
    read.take(
        "DURABILITY",
        env.durability.clone(),
        Durability::Memory,
        |text| match text {
            "memory" => Ok(Durability::Memory),
            "replicated" => Ok(Durability::Replicated {
                replicas,
                timeout_ms,
            }),
            _ => Err("must be memory or replicated".to_owned()),
        },
    )
}

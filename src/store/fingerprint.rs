//! Tells two requests under one idempotency key apart.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Bytes of the hash that are kept: 2^64 requests under one key until two are taken for the same.
const BYTES: usize = 16;

/// The first [`BYTES`] of SHA-256 over the parts, each behind its length, in hex.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut hex = String::with_capacity(2 * BYTES);
    for byte in &hash.finalize()[..BYTES] {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

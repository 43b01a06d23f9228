//! What is reserved in a shard.

use super::show;
use crate::raw::Key;

/// Each is a deadline and a count, and the key lives as long as the last of them.
pub fn check_reservations(name: &str, key: &Key, now: u64, wrong: &mut Vec<String>) {
    let leaves = now.saturating_add_signed(key.ttl_ms) + 1; // two roundings to whole ms
    for (id, hold) in key.pairs() {
        let hold = show(&hold);
        let parsed = hold
            .split_once(' ')
            .and_then(|(at, count)| Some((at.parse::<u64>().ok()?, count.parse::<u64>().ok()?)));
        if parsed.is_none_or(|(at, count)| at > leaves || count == 0) {
            wrong.push(format!(
                "{name}: {}: {hold}, the key leaves at {leaves}",
                show(&id)
            ));
        }
    }
}

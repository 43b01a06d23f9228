//! Whether there is room, and what happens when there is none.

use super::facts::Facts;
use super::{Finding, Grade, unknown};

/// From this part of the limit on, in percent, it is nearly full.
const NEARLY_PERCENT: u64 = 90;

pub(super) fn eviction(facts: &Facts) -> Finding {
    let (Some(limit), Some(policy)) = (facts.maxmemory, facts.maxmemory_policy.as_deref()) else {
        return unknown("eviction", "maxmemory and its policy");
    };
    let found = format!("maxmemory {limit}, {policy}");
    if limit == 0 || policy == "noeviction" {
        return Finding::new("eviction", Grade::Ok, found);
    }
    // The keys of ours that have a TTL are remembered answers, alarms and tombstones.
    let (grade, costs) = if policy.starts_with("volatile-") {
        (Grade::Warn, "when it is full, retries may be granted twice")
    } else {
        (Grade::Fail, "when it is full, it throws tokens away")
    };
    Finding::new("eviction", grade, format!("{found}: {costs}"))
        .mend("CONFIG SET maxmemory-policy noeviction")
}

/// How much of its limit is used; nothing where it has none or does not tell.
pub(super) fn memory(facts: &Facts) -> Option<Finding> {
    let limit = facts.maxmemory.filter(|limit| *limit > 0)?;
    let used = facts.used_memory?;
    let percent = used.saturating_mul(100) / limit;
    let found = format!("{percent} % of maxmemory {limit} used");
    let (grade, costs) = match percent {
        100.. => (
            Grade::Fail,
            ": nothing more is taken in, and assigns may be refused",
        ),
        NEARLY_PERCENT.. => (Grade::Warn, ": nearly full"),
        _ => return Some(Finding::new("memory", Grade::Ok, found)),
    };
    let mend =
        "CONFIG SET maxmemory to more, or delete tokens and pools: that works when it is full too";
    Some(Finding::new("memory", grade, format!("{found}{costs}")).mend(mend))
}

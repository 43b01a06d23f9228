//! What a case is made of: steps that are drawn at random; what they meet is only known when they run.

use proptest::prelude::*;
use proptest::sample::select;
use tokend::token::Flow;

use super::oracle::Members;

/// Names that metadata chooses from, so that merges meet.
const NAMES: [&str; 4] = ["a", "b", "c", ""];
const VALUES: [&str; 8] = [
    "1",
    "null",
    "{}",
    "[]",
    "12345678901234567890",
    "1e400",
    "\"x\\u00e9\"",
    "[1, 2.0]",
];
/// Two of these are too large together.
const LARGE_BYTES: usize = 40_000;

#[derive(Debug, Clone, Copy)]
pub enum Until {
    Ms(u64),
    /// So many ticks after (or before) the end of a family's grace, of its time for retries, or its deadline.
    Grace(u8, i8),
    Retry(u8, i8),
    Deadline(u8, i8),
}

#[derive(Debug, Clone)]
pub enum Step {
    Create {
        flow: Flow,
        subject: bool,
        lifetime_ms: Option<u64>,
        metadata: Members,
    },
    /// Which family, and how many numbers behind its current one (or ahead of it).
    Exchange {
        pick: u8,
        behind: i8,
        metadata: Members,
    },
    /// As often one after the other as makes its first number lie far behind, and then that number again.
    Rotate {
        pick: u8,
        times: i8,
    },
    Delete(u8),
    /// A replica with other limits starts.
    Limits {
        lifetime_ms: u64,
        max: u64,
    },
    Walk,
    Pass(Until),
}

fn metadata() -> impl Strategy<Value = Members> {
    let value = prop_oneof![
        4 => select(&VALUES[..]).prop_map(str::to_owned),
        1 => Just(format!("\"{}\"", "x".repeat(LARGE_BYTES))),
    ];
    prop::collection::btree_map(select(&NAMES[..]).prop_map(str::to_owned), value, 0..3)
}

fn behind() -> impl Strategy<Value = i8> {
    prop_oneof![12 => Just(0_i8), 5 => Just(1), 2 => Just(2), 2 => 3..=11_i8, 1 => Just(-1)]
}

fn times() -> impl Strategy<Value = Until> {
    prop_oneof![
        2 => (100..5_000_u64).prop_map(Until::Ms),
        1 => (10_000..200_000_u64).prop_map(Until::Ms),
        3 => (any::<u8>(), -1..=1_i8).prop_map(|(pick, ticks)| Until::Grace(pick, ticks)),
        3 => (any::<u8>(), -1..=1_i8).prop_map(|(pick, ticks)| Until::Retry(pick, ticks)),
        2 => (any::<u8>(), -1..=1_i8).prop_map(|(pick, ticks)| Until::Deadline(pick, ticks)),
    ]
}

pub fn steps() -> impl Strategy<Value = Step> {
    let flow = select(vec![
        Flow::OneTime,
        Flow::OneTime,
        Flow::Session,
        Flow::Session,
        Flow::Temporary,
    ]);
    let lifetime = select(vec![1_000, 11_000, 61_234, 3_600_000]);
    let exchange =
        (any::<u8>(), behind(), metadata()).prop_map(|(pick, behind, metadata)| Step::Exchange {
            pick,
            behind,
            metadata,
        });
    prop_oneof![
        4 => (flow, any::<bool>(), prop::option::of(lifetime.clone()), metadata()).prop_map(
            |(flow, subject, lifetime_ms, metadata)| Step::Create { flow, subject, lifetime_ms, metadata }
        ),
        14 => exchange,
        1 => (any::<u8>(), 7..=10_i8).prop_map(|(pick, times)| Step::Rotate { pick, times }),
        1 => any::<u8>().prop_map(Step::Delete),
        1 => (lifetime, 1..9_u64).prop_map(|(lifetime_ms, max)| Step::Limits { lifetime_ms, max }),
        1 => Just(Step::Walk),
        5 => times().prop_map(Step::Pass),
    ]
}

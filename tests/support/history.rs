//! What many tasks did at once and were answered, and whether that can have been right.
//!
//! A call ran at some moment between its start and its end, nobody knows when. So only what is certain
//! counts: a hold lasts for sure from the moment its grant was answered until the first of: the deadline that
//! was told last, or the start of the call that ended it. Deadlines and grants are compared in Redis's own
//! clock where the answer implies it, everything else in this process's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokend::token::*;

/// What was asked and answered. Only outcomes that the rules are about; a call that failed with an
/// unknown outcome is recorded as one that may have run.
#[derive(Debug, Clone)]
pub enum Did {
    Generated(Vec<TokenValue>),
    Granted(Grant),
    /// Kept alive under this fence: the new deadline.
    Kept {
        token: TokenValue,
        fence: Fence,
        expires_at_ms: u64,
        expires_in_ms: u64,
    },
    /// Released; `None` is whatever grant it was.
    Released {
        token: TokenValue,
        fence: Option<Fence>,
    },
    /// The token was not held under this fence any more.
    Lost {
        token: TokenValue,
        fence: Fence,
    },
    Deleted(TokenValue),
    Absent(TokenValue),
    Counted(PoolCounts),
    /// May have ended the hold of this grant (`None`: of any), and may not have.
    MaybeEnded {
        token: TokenValue,
        fence: Option<Fence>,
        deleted: bool,
    },
    /// May have added so many.
    MaybeGenerated(u64),
    /// May have granted one.
    MaybeGranted,
    /// Nothing that a rule is about.
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub start: Instant,
    pub end: Instant,
    /// Only shown with a violation.
    #[allow(dead_code)]
    pub replica: usize,
    pub did: Did,
}

impl Event {
    /// It had happened before the other began.
    fn before(&self, other: &Self) -> bool {
        self.end <= other.start
    }
}

/// What was recorded of one pool.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub events: Vec<Event>,
    /// Over how many shards the pool is spread: each has fences of its own. 0 is 1.
    pub shards: u32,
}

/// One grant and what is known of its end.
struct Hold<'a> {
    granted: &'a Event,
    grant: &'a Grant,
    /// Certain until here, in this process's clock: from what was told, and the first call that may have
    /// ended it.
    until: Instant,
    /// In Redis's clock; `None` if a call may have ended it before its deadline.
    expires_at_ms: Option<u64>,
}

impl Hold<'_> {
    /// When Redis granted it, in its own clock.
    fn redis_ms(&self) -> u64 {
        self.grant.expires_at_ms - self.grant.expires_in_ms
    }
}

/// What a rule found.
pub type Violations = Vec<String>;

/// What each rule found.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Two holders of one token at one moment.
    pub overlaps: Violations,
    /// A fence granted twice, or later and lower.
    pub fences: Violations,
    /// Deleted, and there again.
    pub resurrections: Violations,
    /// Told that a lease was over before its end.
    pub early: Violations,
    pub over_cap: Violations,
    /// Neither free nor held nor cooling nor deleted.
    pub lost: Violations,
}

impl Judged {
    pub fn all(self) -> Violations {
        let rules = [
            self.overlaps,
            self.fences,
            self.resurrections,
            self.early,
            self.over_cap,
            self.lost,
        ];
        rules.concat()
    }
}

impl History {
    /// Every rule. `cap` is the pool's `max_tokens`; tokens vanish from the pool only by delete.
    pub fn judge(&self, cap: u64) -> Judged {
        let holds = self.holds();
        Judged {
            overlaps: self.overlaps(&holds),
            fences: self.fences(&holds),
            resurrections: self.resurrections(&holds),
            early: self.early_ends(&holds),
            over_cap: self.over_cap(cap),
            lost: self.lost_tokens(),
        }
    }

    /// What every rule found, in one list.
    pub fn violations(&self, cap: u64) -> Violations {
        self.judge(cap).all()
    }

    /// # Panics
    /// When a rule is violated.
    pub fn check(&self, cap: u64) {
        let violations = self.violations(cap);
        let shown = violations.iter().take(5).cloned().collect::<Vec<_>>();
        assert!(
            violations.is_empty(),
            "{} violations:\n{}",
            violations.len(),
            shown.join("\n")
        );
    }

    pub fn grants(&self) -> usize {
        let granted = |event: &&Event| matches!(event.did, Did::Granted(_));
        self.events.iter().filter(granted).count()
    }

    fn holds(&self) -> Vec<Hold<'_>> {
        let mut by_token: BTreeMap<&TokenValue, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            if let Some(token) = token_of(&event.did) {
                by_token.entry(token).or_default().push(event);
            }
        }
        let granted = self.events.iter().filter_map(|event| match &event.did {
            Did::Granted(grant) => Some((event, grant)),
            _ => None,
        });
        granted
            .map(|(event, grant)| hold(event, grant, &by_token[&grant.token]))
            .collect()
    }

    /// One holder: no two certain holds of one token at one moment.
    fn overlaps(&self, holds: &[Hold<'_>]) -> Violations {
        let mut found = Vec::new();
        for (a, b) in pairs_of_one_token(holds) {
            let (from, until) = (a.granted.end.max(b.granted.end), a.until.min(b.until));
            if from < until {
                found.push(format!(
                    "two holders for {:?}: {:?} and {:?}",
                    until - from,
                    a.granted,
                    b.granted
                ));
            }
            // To the millisecond, where nothing but its deadline can have ended the earlier one.
            let (first, second) = if a.grant.fence < b.grant.fence {
                (a, b)
            } else {
                (b, a)
            };
            if first.expires_at_ms.is_some_and(|at| second.redis_ms() < at) {
                found.push(format!(
                    "two holders by Redis's clock: {:?} and {:?}",
                    first.granted, second.granted
                ));
            }
        }
        found
    }

    /// Fences are unique in a shard, and rise in the order of the grants of one token.
    fn fences(&self, holds: &[Hold<'_>]) -> Violations {
        let mut seen = BTreeSet::new();
        let of = |grant: &Grant| (grant.token.shard(self.shards), grant.fence);
        let twice = holds.iter().filter(|hold| !seen.insert(of(hold.grant)));
        let mut found: Vec<_> = twice
            .map(|hold| format!("a fence granted twice: {:?}", hold.granted))
            .collect();
        for (a, b) in pairs_of_one_token(holds) {
            let falls = |a: &Hold<'_>, b: &Hold<'_>| {
                a.granted.before(b.granted) && a.grant.fence >= b.grant.fence
            };
            if falls(a, b) || falls(b, a) {
                found.push(format!("fences fall: {:?} and {:?}", a.granted, b.granted));
            }
        }
        found
    }

    /// Deleted stays deleted: no later call meets the token, unless it was added again.
    fn resurrections(&self, holds: &[Hold<'_>]) -> Violations {
        let mut found = Vec::new();
        let deletions = self.events.iter().filter_map(|event| match &event.did {
            Did::Deleted(token) => Some((event, token)),
            _ => None,
        });
        for (deletion, token) in deletions {
            let added_again = self.events.iter().any(|event| {
                matches!(&event.did, Did::Generated(tokens) if tokens.contains(token))
                    && event.end > deletion.start
            });
            if added_again {
                continue;
            }
            let later = |event: &&Event| deletion.before(event) && meets(&event.did, token);
            if let Some(event) = self.events.iter().find(later) {
                found.push(format!("deleted, and there again: {deletion:?}, {event:?}"));
            }
            let twice = self
                .events
                .iter()
                .filter(|event| matches!(&event.did, Did::Deleted(other) if other == token));
            if twice.count() > 1 {
                found.push(format!("deleted twice: {token}"));
            }
            let granted_later = holds
                .iter()
                .any(|hold| hold.grant.token == *token && deletion.before(hold.granted));
            if granted_later {
                found.push(format!("granted after its deletion: {token}"));
            }
        }
        found
    }

    /// Never early: while a hold was certain, nobody was told that it had ended.
    fn early_ends(&self, holds: &[Hold<'_>]) -> Violations {
        let mut found = Vec::new();
        for hold in holds {
            let early = self.events.iter().find(|event| {
                let told = match &event.did {
                    Did::Lost { token, fence } => {
                        *token == hold.grant.token && *fence == hold.grant.fence
                    }
                    Did::Absent(token) => *token == hold.grant.token,
                    _ => false,
                };
                told && hold.granted.before(event) && event.end < hold.until
            });
            if let Some(event) = early {
                found.push(format!("early: {:?} was lost at {event:?}", hold.granted));
            }
        }
        found
    }

    /// The cap: never more counted, nor more certainly there.
    fn over_cap(&self, cap: u64) -> Violations {
        let mut found = Vec::new();
        for event in &self.events {
            match &event.did {
                Did::Counted(counts) if counts.total() > cap => {
                    found.push(format!("{counts:?} in a pool of {cap}"));
                }
                Did::Generated(_) => {
                    let there = self.certainly_there(event.end);
                    if there > cap {
                        found.push(format!("{there} tokens in a pool of {cap}: {event:?}"));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Tokens whose addition had been answered by then, but for those whose deletion had begun.
    fn certainly_there(&self, at: Instant) -> u64 {
        let (mut added, mut deleted) = (0, 0);
        for event in &self.events {
            match &event.did {
                Did::Generated(tokens) if event.end <= at => added += tokens.len() as u64,
                Did::Deleted(_) | Did::MaybeEnded { deleted: true, .. } if event.start <= at => {
                    deleted += 1;
                }
                _ => {}
            }
        }
        added.saturating_sub(deleted)
    }

    /// Nothing lost: when all is quiet, generated = free + held + cooling + deleted. Checked at each count
    /// that ran alone.
    fn lost_tokens(&self) -> Violations {
        let mut found = Vec::new();
        for (n, event) in self.events.iter().enumerate() {
            let Did::Counted(counts) = &event.did else {
                continue;
            };
            let mut others = self
                .events
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != n);
            if !others.all(|(_, other)| other.before(event) || event.before(other)) {
                continue;
            }
            let (mut least, mut most) = (0_u64, 0_u64);
            let (mut deleted, mut maybe_deleted) = (0, 0);
            for earlier in self.events.iter().filter(|other| other.before(event)) {
                match &earlier.did {
                    Did::Generated(tokens) => {
                        least += tokens.len() as u64;
                        most += tokens.len() as u64;
                    }
                    Did::MaybeGenerated(count) => most += count,
                    Did::Deleted(_) => deleted += 1,
                    Did::MaybeEnded { deleted: true, .. } => maybe_deleted += 1,
                    _ => {}
                }
            }
            let there = counts.total() + deleted;
            if there + maybe_deleted < least || there > most {
                found.push(format!(
                    "{least} to {most} generated, {counts:?} and {deleted} (+{maybe_deleted}) deleted"
                ));
            }
        }
        found
    }
}

fn token_of(did: &Did) -> Option<&TokenValue> {
    match did {
        Did::Granted(grant) => Some(&grant.token),
        Did::Kept { token, .. }
        | Did::Released { token, .. }
        | Did::Lost { token, .. }
        | Did::MaybeEnded { token, .. }
        | Did::Deleted(token)
        | Did::Absent(token) => Some(token),
        Did::Generated(_)
        | Did::Counted(_)
        | Did::MaybeGenerated(_)
        | Did::MaybeGranted
        | Did::Nothing => None,
    }
}

/// The answer says that the token was there.
fn meets(did: &Did, token: &TokenValue) -> bool {
    match did {
        Did::Granted(grant) => grant.token == *token,
        Did::Kept { token: met, .. }
        | Did::Released { token: met, .. }
        | Did::Lost { token: met, .. } => met == token,
        _ => false,
    }
}

fn hold<'a>(granted: &'a Event, grant: &'a Grant, events: &[&'a Event]) -> Hold<'a> {
    // What was told, each from the start of its call: Redis counted from later. A newer answer replaces
    // those that it certainly came behind; of the others, any may be the last.
    let mut told = vec![(granted, grant.expires_in_ms, grant.expires_at_ms)];
    let mut ended: Option<Instant> = None;
    for event in events {
        let ends = match &event.did {
            Did::Kept {
                fence,
                expires_in_ms,
                expires_at_ms,
                ..
            } if *fence == grant.fence => {
                told.push((event, *expires_in_ms, *expires_at_ms));
                false
            }
            Did::Released { fence, .. } | Did::MaybeEnded { fence, .. } => {
                fence.is_none_or(|fence| fence == grant.fence)
            }
            Did::Deleted(_) => true,
            _ => false,
        };
        // What was over before the grant was asked for can't have ended it.
        if ends && event.end > granted.start {
            ended = Some(ended.map_or(event.start, |at| at.min(event.start)));
        }
    }
    let newest = |of: &Event| !told.iter().any(|(other, ..)| of.before(other));
    let last: Vec<_> = told.iter().filter(|(event, ..)| newest(event)).collect();
    let lapses = last
        .iter()
        .map(|(event, ms, _)| event.start + Duration::from_millis(*ms))
        .min()
        .expect("the grant, or a keep-alive behind it");
    Hold {
        granted,
        grant,
        until: ended.map_or(lapses, |ended| ended.min(lapses)),
        expires_at_ms: match ended {
            Some(_) => None,
            None => last.iter().map(|(_, _, at)| *at).min(),
        },
    }
}

fn pairs_of_one_token<'a, 'b>(
    holds: &'b [Hold<'a>],
) -> impl Iterator<Item = (&'b Hold<'a>, &'b Hold<'a>)> {
    let mut by_token: BTreeMap<&TokenValue, Vec<&Hold<'a>>> = BTreeMap::new();
    for hold in holds {
        by_token.entry(&hold.grant.token).or_default().push(hold);
    }
    by_token.into_values().flat_map(|holds| {
        let mut pairs = Vec::new();
        for (n, a) in holds.iter().enumerate() {
            pairs.extend(holds[n + 1..].iter().map(|b| (*a, *b)));
        }
        pairs
    })
}

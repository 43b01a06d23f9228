//! Whether a Redis can keep what tokend promises: what was read of one primary (`facts.rs`) in, findings out.
//!
//! Done after each start, for the log, and by `tokend doctor`. To add a check: what it needs in [`Facts`], a function
//! in [`judge`], a case in the tests.

mod facts;
mod memory;
mod placed;
mod replicas;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fred::error::Error;
use fred::interfaces::HashesInterface;
use tracing::{error, warn};

use self::facts::{Facts, ReplicaClock};
use self::memory::{eviction, memory};
use self::placed::{cluster, layout, takes_writes};
pub(super) use self::replicas::look_at_replicas;
use super::keys::{Partition, slot_of};
use super::redis::{Node, in_words};
use super::{Durability, Inner, writes};

/// First Redis that knows `#!lua` flags and EXPIRE NX.
const REDIS_MAJOR_MIN: u32 = 7;
/// Clocks may differ by so much, ms: NTP keeps them within a few, and a second is the shortest duration there is.
const SKEW_MS_MAX: u64 = 1_000;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Good to know.
    Info,
    /// A promise is weaker than it could be.
    Warn,
    /// A promise does not hold, or nothing works.
    Fail,
}

impl Grade {
    /// As `tokend doctor` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found on one primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How it went.
    pub grade: Grade,
    /// What was found, as a clause.
    pub found: String,
    /// The line that mends it; `None` where nothing has to be mended.
    pub mend: Option<String>,
}

impl Finding {
    fn new(check: &'static str, grade: Grade, found: impl Into<String>) -> Self {
        Self {
            check,
            grade,
            found: found.into(),
            mend: None,
        }
    }

    fn mend(mut self, line: impl Into<String>) -> Self {
        self.mend = Some(line.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)?;
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

/// What was found on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Where it is; never with a password.
    pub server: String,
    /// Every check.
    pub findings: Vec<Finding>,
}

/// Looks at one primary. Says why it could not.
pub(super) async fn look_at(inner: &Inner, node: &Arc<Node>) -> Result<Diagnosis, String> {
    let primary = node.client();
    let looking = async {
        let mut facts = facts::read(primary).await?;
        facts::ask_replicas(primary, &mut facts).await;
        let mut findings = judge(&facts, inner.config.durability);
        let tagged = inner.keys.partitions.iter();
        let tags: Vec<_> = tagged.map(Partition::tag).collect();
        findings.extend(cluster(&facts, node.of_cluster, inner.redis.uncovered()));
        if inner.redis.owns(node, slot_of(&inner.keys.layout)) {
            let theirs = primary.hmget(
                inner.keys.layout.as_str(),
                vec!["partitions", "superseded_by"],
            );
            findings.push(match theirs.await {
                Ok(theirs) => layout(theirs, inner.config.partitions, &tags),
                Err(error) => Finding::new("layout", Grade::Fail, in_words(&error)),
            });
        }
        findings.push(takes_writes(writes::refusal(inner, node).await));
        Ok(Diagnosis {
            server: node.to_string(),
            findings,
        })
    };
    looking.await.map_err(|error: Error| in_words(&error))
}

/// One that could not be looked at.
pub(super) fn away(node: &Node, why: &str) -> Diagnosis {
    Diagnosis {
        server: node.to_string(),
        findings: vec![Finding::new("connection", Grade::Fail, why)],
    }
}

/// What keeps tokend from using a Redis that tells this about itself. One that throws tokens away is refused at the
/// start alone: a service that runs is not stopped by it, but told of it.
pub(super) fn refusal(info: &str, starting: bool) -> Option<Finding> {
    refused(&Facts::from_info(info), starting)
}

/// What the log has been told, so that it is not told again on every connection.
#[derive(Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    /// Tells the log what is new of what has to be mended.
    pub fn tell(&self, Diagnosis { server, findings }: &Diagnosis) {
        for finding in findings {
            if finding.grade >= Grade::Warn && self.is_new(server, finding) {
                if finding.grade == Grade::Fail {
                    error!(redis = server, "{finding}");
                } else {
                    warn!(redis = server, "{finding}");
                }
            }
        }
    }

    fn is_new(&self, server: &str, finding: &Finding) -> bool {
        // Not what was found: its figures may change each time.
        let what = format!("{server} {} {}", finding.check, finding.grade.as_str());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what)
    }
}

/// Every check, in the order in which they are told.
fn judge(facts: &Facts, durability: Durability) -> Vec<Finding> {
    let mut findings = vec![version(facts), role(facts), eviction(facts)];
    findings.extend(memory(facts));
    findings.extend(
        [append_only(facts), append_fsync(facts, durability)]
            .into_iter()
            .flatten(),
    );
    findings.push(events(facts));
    if let Durability::Replicated { replicas, .. } = durability {
        findings.push(replicas_connected(facts, replicas));
        findings.push(replicas_required(facts, replicas));
    }
    findings.push(own_clock(facts));
    findings.extend(facts.replica_clocks.iter().map(replica_clock));
    findings
}

fn refused(facts: &Facts, starting: bool) -> Option<Finding> {
    let checks = [Some(version(facts)), starting.then(|| eviction(facts))];
    let mut checks = checks.into_iter().flatten();
    checks.find(|it| it.grade == Grade::Fail)
}

fn unknown(check: &'static str, what: &str) -> Finding {
    Finding::new(
        check,
        Grade::Info,
        format!("this Redis does not tell {what}"),
    )
}

/// The scripts need what older ones do not have.
fn version(facts: &Facts) -> Finding {
    let Some(version) = &facts.version else {
        return unknown("version", "its version");
    };
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major < REDIS_MAJOR_MIN) {
        return Finding::new(
            "version",
            Grade::Fail,
            format!("{version}, which is too old"),
        )
        .mend(format!("run Redis {REDIS_MAJOR_MIN}.0 or newer, or Valkey"));
    }
    Finding::new("version", Grade::Ok, version.clone())
}

fn role(facts: &Facts) -> Finding {
    match facts.role.as_deref() {
        None => unknown("role", "its role"),
        Some("master") => Finding::new("role", Grade::Ok, "primary"),
        Some(other) => Finding::new("role", Grade::Fail, format!("{other}: it refuses writes"))
            .mend("let REDIS_URL name the primary, or the Sentinels that know it"),
    }
}

fn append_only(facts: &Facts) -> Option<Finding> {
    let finding = match facts.append_only {
        None => unknown("append-only", "whether it has an append-only file"),
        Some(true) => Finding::new("append-only", Grade::Ok, "on"),
        Some(false) => Finding::new(
            "append-only",
            Grade::Warn,
            "off: a restart of Redis loses tokens and leases",
        )
        .mend("CONFIG SET appendonly yes, and the same in redis.conf"),
    };
    Some(finding)
}

fn append_fsync(facts: &Facts, durability: Durability) -> Option<Finding> {
    if facts.append_only != Some(true) {
        return None;
    }
    let Some(policy) = facts.append_fsync.as_deref() else {
        return Some(unknown("append-fsync", "appendfsync (CONFIG is refused)"));
    };
    if policy == "always" {
        return Some(Finding::new("append-fsync", Grade::Ok, policy));
    }
    let costs = if policy == "everysec" {
        "up to 2 s of acknowledged changes"
    } else {
        "what the system had not written yet"
    };
    let found = format!("{policy}: a crash of its machine costs {costs}");
    let grade = match durability {
        Durability::Memory => Grade::Warn,
        // Others have what this one loses.
        Durability::Replicated { .. } => Grade::Info,
    };
    Some(Finding::new("append-fsync", grade, found).mend("CONFIG SET appendfsync always"))
}

fn events(facts: &Facts) -> Finding {
    let Some(flags) = facts.notify.as_deref() else {
        return unknown("events", "notify-keyspace-events (CONFIG is refused)");
    };
    let has = |flag| flags.contains(flag);
    if (has('K') || has('E')) && (has('x') || has('A')) {
        return Finding::new("events", Grade::Ok, format!("{flags:?}"));
    }
    let found = format!("{flags:?}: no events of expired keys; replicas run on their timers");
    Finding::new("events", Grade::Info, found).mend(format!(
        "CONFIG SET notify-keyspace-events {flags}Kx (tokend serve does it where it may)"
    ))
}

fn replicas_connected(facts: &Facts, wanted: u32) -> Finding {
    let Some(connected) = facts.connected_replicas else {
        return unknown("replicas", "how many replicas it has");
    };
    let found = format!("{connected} connected, WAIT_REPLICAS is {wanted}");
    if connected >= u64::from(wanted) {
        return Finding::new("replicas", Grade::Ok, found);
    }
    Finding::new(
        "replicas",
        Grade::Warn,
        format!("{found}: every change is outcome-unknown"),
    )
    .mend("connect more replicas (REPLICAOF), or lower WAIT_REPLICAS")
}

fn replicas_required(facts: &Facts, wanted: u32) -> Finding {
    let Some(required) = facts.min_replicas_to_write else {
        return unknown("min-replicas", "min-replicas-to-write (CONFIG is refused)");
    };
    let found = format!("min-replicas-to-write {required}");
    if required >= u64::from(wanted) {
        return Finding::new("min-replicas", Grade::Ok, found);
    }
    Finding::new(
        "min-replicas",
        Grade::Warn,
        format!("{found}: a primary that is cut off goes on granting what it will lose"),
    )
    .mend(format!("CONFIG SET min-replicas-to-write {wanted}"))
}

/// Milliseconds between two clocks at the least, given that the difference lies within the bounds.
fn apart(bounds: (i64, i64)) -> u64 {
    let (low, high) = bounds;
    if low > 0 {
        low.unsigned_abs()
    } else if high < 0 {
        high.unsigned_abs()
    } else {
        0
    }
}

fn clocks(check: &'static str, whose: &str, bounds: Option<(i64, i64)>, costs: &str) -> Finding {
    let Some(bounds) = bounds else {
        return Finding::new(check, Grade::Info, format!("{whose} could not be asked"));
    };
    let apart_ms = apart(bounds);
    if apart_ms <= SKEW_MS_MAX {
        return Finding::new(
            check,
            Grade::Ok,
            format!("{whose} agrees within {SKEW_MS_MAX} ms"),
        );
    }
    let found = format!("{whose} is off by {apart_ms} ms: {costs}");
    Finding::new(check, Grade::Warn, found)
        .mend("set the clocks by NTP (chrony, systemd-timesyncd)")
}

/// No lease depends on the clock of a tokend.
fn own_clock(facts: &Facts) -> Finding {
    let costs = "access tokens begin and end by it, leases do not";
    clocks(
        "clock",
        "the clock of this machine",
        facts.clock_bounds_ms,
        costs,
    )
}

fn replica_clock(replica: &ReplicaClock) -> Finding {
    let whose = format!("the clock of the replica {}", replica.name);
    let costs = "if it is promoted, leases end early or late by that";
    clocks("replica-clock", &whose, replica.bounds_ms, costs)
}

#[cfg(test)]
mod tests;

//! The bearer flows written down a second time: plain data, no wheel, no scripts, no Redis. Time is virtual:
//! Redis's clock plus all that the test has let pass.

use std::collections::BTreeMap;

use tokend::store::GRACE_MS;
use tokend::token::rotating::ROTATION_RETRY_DEFAULT;
use tokend::token::*;

use crate::harness::PARTITIONS;

/// A number in the grace that is further behind than this revokes all the same.
const FORGIVEN: u64 = 8;

/// A token, or a family of rotating ones, by flow and by what the store knows it by.
pub type Id = (Flow, String);

/// Names and JSON texts.
pub type Members = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: usize,
    pub number: u64,
    pub since: u64,
    pub deadline: u64,
    pub subject: Option<Holder>,
    pub metadata: Members,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub limits: FlowsLimits,
    pub alive: BTreeMap<Id, Record>,
    /// Virtual minus real time.
    pub shifted: u64,
}

/// What is asked of a family.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: Id,
    pub number: u64,
    pub metadata: Members,
}

/// What was expected instead of the answer.
pub type Check = Result<(), String>;

pub fn members(metadata: &Metadata) -> Members {
    let members = metadata.members();
    members.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn bytes(members: &Members) -> usize {
    let each = members
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4);
    1 + each.sum::<usize>()
}

fn expect<T: PartialEq + std::fmt::Debug>(expected: &T, got: &T) -> Check {
    if expected == got {
        Ok(())
    } else {
        Err(format!("expected {expected:?}"))
    }
}

impl Model {
    pub fn new(limits: FlowsLimits) -> Self {
        Self {
            limits,
            alive: BTreeMap::new(),
            shifted: 0,
        }
    }

    /// A deadline that has passed has happened.
    pub fn settle(&mut self, now: u64) {
        self.alive.retain(|_, record| record.deadline >= now);
    }

    /// The part of a flow's cap that one partition has: the first ones have the rest of the division.
    fn room(&self, flow: Flow, partition: usize) -> u64 {
        let (max, count) = (self.limits.of(flow).max, u64::from(PARTITIONS));
        let share = max / count + u64::from((partition as u64) < max % count);
        let there = self.alive.iter();
        let there = there.filter(|((of, _), r)| *of == flow && r.partition == partition);
        share.saturating_sub(there.count() as u64)
    }

    pub fn refused(&mut self, now: u64, flow: Flow) -> Check {
        self.settle(now);
        let full = (0..PARTITIONS as usize).all(|partition| self.room(flow, partition) == 0);
        if full {
            Ok(())
        } else {
            Err("there was room".to_owned())
        }
    }

    pub fn created(
        &mut self,
        now: u64,
        id: Id,
        record: Record,
        lifetime: Option<u64>,
        told: &Created,
    ) -> Check {
        self.settle(now);
        if self.room(id.0, record.partition) == 0 {
            return Err("no room in that partition".to_owned());
        }
        let lifetime = lifetime.unwrap_or(self.limits.of(id.0).lifetime_ms);
        let record = Record {
            number: 1,
            since: now,
            deadline: now + lifetime,
            ..record
        };
        let expected = Created {
            created_at_ms: now - self.shifted,
            expires_at_ms: record.deadline - self.shifted,
        };
        self.alive.insert(id, record);
        expect(&expected, told)
    }

    pub fn exchanged(&mut self, now: u64, asked: &Asked, answer: &ExchangeOutcome) -> Check {
        self.settle(now);
        let expected = self.exchange(now, asked);
        expect(&expected, answer)
    }

    fn exchange(&mut self, now: u64, asked: &Asked) -> ExchangeOutcome {
        let flow = asked.id.0;
        let lifetime = self.limits.of(flow).lifetime_ms;
        let Some(record) = self.alive.get_mut(&asked.id) else {
            return ExchangeOutcome::Absent;
        };
        if asked.number > record.number {
            return ExchangeOutcome::Absent;
        }
        let age = now - record.since;
        let behind = record.number - asked.number;
        if behind == 0 {
            let mut merged = record.metadata.clone();
            merged.extend(asked.metadata.clone());
            if !asked.metadata.is_empty() && bytes(&merged) > METADATA_BYTES_MAX {
                return ExchangeOutcome::TooLarge;
            }
            record.metadata = merged;
            record.number += 1;
            record.since = now;
            if flow == Flow::OneTime {
                record.deadline = now + lifetime;
            }
        } else if behind > 1 || u128::from(age) > ROTATION_RETRY_DEFAULT.as_millis() {
            if flow == Flow::OneTime || (age <= GRACE_MS && behind <= FORGIVEN) {
                return ExchangeOutcome::Spent;
            }
            self.alive.remove(&asked.id);
            return ExchangeOutcome::Reused;
        }
        let members = record.metadata.clone().into_iter().collect();
        ExchangeOutcome::Exchanged(Exchanged {
            number: Fence::parse(record.number).expect("in range"),
            subject: record.subject.clone(),
            expires_at_ms: record.deadline - self.shifted,
            now_ms: now - self.shifted,
            metadata: Metadata::from_stored(members).expect("JSON"),
        })
    }

    pub fn deleted(&mut self, now: u64, id: &Id, answer: bool) -> Check {
        self.settle(now);
        expect(&self.alive.remove(id).is_some(), &answer)
    }

    /// How it looks; its `now_ms` and metadata are the caller's to fill in.
    pub fn view(&self, id: &Id, now_ms: u64) -> Option<BearerView> {
        let record = self.alive.get(id)?;
        Some(BearerView {
            number: Fence::parse(record.number).expect("in range"),
            subject: record.subject.clone(),
            since_ms: record.since - self.shifted,
            expires_at_ms: record.deadline - self.shifted,
            now_ms,
            metadata: Metadata::default(),
        })
    }
}

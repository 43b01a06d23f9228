//! Random sequences of everything that the bearer flows can be asked for, and of time that passes, compared
//! with a plain model (`oracle.rs`) after every step: answers, numbers, deadlines to the millisecond, metadata.
//! Redis tells when it ran a call in most of its answers; where not, the model is tried at each millisecond of it.
//!
//! `PROPTEST_CASES` sets the number of cases.

mod oracle;
mod steps;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokend::store::{Durability, ExchangeRequest, GRACE_MS, StoreConfig};
use tokend::token::bearer::{self, BearerHash};
use tokend::token::rotating::{ROTATION_RETRY_DEFAULT, Rotating};
use tokend::token::*;
use tokio::runtime::Runtime;

use self::oracle::{Asked, Check, Id, Members, Model, Record, members};
use self::steps::{Step, Until, steps};
use crate::harness::{Fixture, PARTITIONS, holder, new_namespace, redis_url};
use crate::model::redis_ms;

/// Cases where `PROPTEST_CASES` says nothing.
const CASES: u32 = 24;
const STEPS_MAX: usize = 40;
const TICK_MS: u64 = 100;
/// What a caller keeps of what it was given.
#[derive(Debug, Clone)]
enum Kept {
    Family(Rotating),
    Opaque(String),
}

struct Case {
    fixture: Fixture,
    /// Replicas with other limits; the last one decides.
    others: Vec<Fixture>,
    model: Model,
    seen: Vec<(Id, Kept)>,
}

fn limits(lifetime_ms: u64, max: u64) -> FlowsLimits {
    let each = FlowLimits { lifetime_ms, max };
    FlowsLimits {
        temporary: each,
        one_time: each,
        unified: each,
        session: each,
    }
}

fn to_metadata(members: &Members) -> Metadata {
    Metadata::from_stored(members.clone().into_iter().collect()).expect("JSON")
}

impl Case {
    async fn start() -> Self {
        let config = StoreConfig {
            url: redis_url().await.to_owned(),
            key_prefix: new_namespace(),
            partitions: PARTITIONS,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows: limits(61_234, 6),
            durability: Durability::Memory,
        };
        let model = Model::new(config.flows);
        Self {
            fixture: Fixture::with(config).await,
            others: Vec::new(),
            model,
            seen: Vec::new(),
        }
    }

    fn pick(&self, pick: u8) -> Option<(Id, Kept)> {
        // The last ones are asked for most: they are alive.
        let recent = self.seen.len().min(5);
        let at = usize::from(pick).checked_rem(recent)?;
        self.seen.iter().rev().nth(at).cloned()
    }

    async fn step(&mut self, step: Step) {
        let told = format!("{step:?}");
        match step {
            Step::Create {
                flow,
                subject,
                lifetime_ms,
                metadata,
            } => {
                let subject = subject.then(|| holder("ann")).flatten();
                if flow == Flow::Temporary {
                    self.create_opaque(flow, subject, lifetime_ms, &told).await;
                } else {
                    self.create_family(flow, subject, metadata, &told).await;
                }
            }
            Step::Exchange {
                pick,
                behind,
                metadata,
            } => {
                self.exchange(pick, behind, metadata, &told).await;
            }
            Step::Rotate { pick, times } => {
                for _ in 0..times {
                    self.exchange(pick, 0, Members::new(), &told).await;
                }
                self.exchange(pick, times, Members::new(), &told).await;
            }
            Step::Delete(pick) => self.delete(pick, &told).await,
            Step::Limits { lifetime_ms, max } => {
                let mut config = self.fixture.config.clone();
                config.flows = limits(lifetime_ms, max);
                self.others.push(Fixture::with(config).await);
                self.set_limits(limits(lifetime_ms, max)).await;
            }
            Step::Walk => self.walk().await,
            Step::Pass(until) => self.pass(until).await,
        }
        self.look(&told).await;
    }

    /// A pool that no one has used yet takes the limits of whoever uses it first: this replica's.
    async fn set_limits(&mut self, limits: FlowsLimits) {
        for (flow, limit) in [
            (Flow::Temporary, &mut self.model.limits.temporary),
            (Flow::OneTime, &mut self.model.limits.one_time),
            (Flow::Session, &mut self.model.limits.session),
        ] {
            if !self.fixture.keys_of(flow).await.is_empty() {
                *limit = limits.of(flow);
            }
        }
    }

    async fn create_opaque(
        &mut self,
        flow: Flow,
        subject: Option<Holder>,
        lifetime: Option<u64>,
        told: &str,
    ) {
        let store = &self.fixture.store;
        let call = store.create_opaque(flow, bearer::temporary, subject.clone(), lifetime);
        let (from, made, to) = self.timed(call).await;
        let Some((opaque, created)) = made.expect("create") else {
            return self.agree(from, from, told, |m, now| m.refused(now, flow));
        };
        let hash = BearerHash::of(&opaque);
        let id = (flow, hash.id().to_string());
        let record = record(hash.partition(PARTITIONS as usize), subject, Members::new());
        self.seen.push((id.clone(), Kept::Opaque(opaque)));
        self.agree(from, to, told, |m, now| {
            m.created(now, id.clone(), record.clone(), lifetime, &created)
        });
    }

    async fn create_family(
        &mut self,
        flow: Flow,
        subject: Option<Holder>,
        metadata: Members,
        told: &str,
    ) {
        let store = &self.fixture.store;
        let call = store.create_family(flow, subject.clone(), to_metadata(&metadata));
        let (from, made, to) = self.timed(call).await;
        let Some((family, created)) = made.expect("create") else {
            return self.agree(from, from, told, |m, now| m.refused(now, flow));
        };
        let id = (flow, family.family.to_string());
        let record = record(family.partition, subject, metadata);
        self.seen.push((id.clone(), Kept::Family(family)));
        self.agree(from, to, told, |m, now| {
            m.created(now, id.clone(), record.clone(), None, &created)
        });
    }

    async fn exchange(&mut self, pick: u8, behind: i8, metadata: Members, told: &str) {
        let Some((id, Kept::Family(family))) = self.pick(pick) else {
            return;
        };
        let current = self.model.alive.get(&id).map_or(1, |record| record.number);
        let number = current.saturating_add_signed(-i64::from(behind)).max(1);
        let metadata = if id.0 == Flow::OneTime {
            metadata
        } else {
            Members::new()
        };
        let request = ExchangeRequest {
            token: Rotating {
                number: Fence::parse(number).expect("in range"),
                ..family
            },
            metadata: to_metadata(&metadata),
            retry: ROTATION_RETRY_DEFAULT,
            renew: id.0 == Flow::OneTime,
            revoke_on_reuse: id.0 == Flow::Session,
        };
        let (from, answer, to) = self
            .timed(self.fixture.store.exchange(id.0, &request))
            .await;
        let answer = answer.expect("exchange");
        let told = format!("{told} of number {number}: {answer:?}");
        let asked = Asked {
            id,
            number,
            metadata,
        };
        self.agree(from, to, &told, |m, now| m.exchanged(now, &asked, &answer));
    }

    async fn delete(&mut self, pick: u8, told: &str) {
        let Some((id, kept)) = self.pick(pick) else {
            return;
        };
        let store = &self.fixture.store;
        let call = async {
            match &kept {
                Kept::Family(family) => {
                    store
                        .delete_family(id.0, family.partition, &family.family)
                        .await
                }
                Kept::Opaque(opaque) => store.delete_opaque(id.0, opaque).await,
            }
        };
        let (from, answer, to) = self.timed(call).await;
        let answer = answer.expect("delete");
        self.agree(from, to, told, |m, now| m.deleted(now, &id, answer));
    }

    /// Who is there throughout is shown once, with its metadata.
    async fn walk(&mut self) {
        for flow in [Flow::OneTime, Flow::Session, Flow::Temporary] {
            let mut shown = Vec::new();
            let walk = self.fixture.store.walk(flow, |view| {
                shown.push((view.number.get(), members(&view.metadata)));
            });
            let (_, walked, to) = self.timed(walk).await;
            walked.expect("walk");
            let mut there = self.model.clone();
            there.settle(to + there.shifted);
            for (_, record) in there.alive.iter().filter(|((of, _), _)| *of == flow) {
                let wanted = (record.number, record.metadata.clone());
                let at = shown.iter().position(|it| *it == wanted);
                shown.remove(
                    at.unwrap_or_else(|| panic!("{flow:?}: {wanted:?} is not among {shown:?}")),
                );
            }
        }
    }

    async fn pass(&mut self, until: Until) {
        let now = redis_ms(&self.fixture).await + self.model.shifted;
        let alive = self.model.alive.values();
        let of = |pick: u8| {
            alive
                .clone()
                .nth(usize::from(pick).checked_rem(alive.len())?)
        };
        let away = |at: Option<u64>, ticks: i8| {
            let away = at.unwrap_or(now).saturating_sub(now) + TICK_MS;
            away.saturating_add_signed(i64::from(ticks) * TICK_MS.cast_signed())
        };
        let ms = match until {
            Until::Ms(ms) => ms,
            Until::Grace(pick, ticks) => away(of(pick).map(|r| r.since + GRACE_MS), ticks),
            Until::Retry(pick, ticks) => {
                let retry_ms = ROTATION_RETRY_DEFAULT.as_millis() as u64;
                away(of(pick).map(|r| r.since + retry_ms), ticks)
            }
            Until::Deadline(pick, ticks) => away(of(pick).map(|r| r.deadline), ticks),
        };
        let ms = ms.max(TICK_MS) / TICK_MS * TICK_MS;
        for flow in Flow::ALL {
            let pool = PoolName::of_flow(flow);
            self.fixture.pass(&pool, Duration::from_millis(ms)).await;
        }
        self.model.shifted += ms;
    }

    async fn timed<T>(&self, call: impl Future<Output = T>) -> (u64, T, u64) {
        let from = redis_ms(&self.fixture).await;
        let answer = call.await;
        (from, answer, redis_ms(&self.fixture).await)
    }

    /// Goes on with what the model makes of the call at the moment at which it agrees with the answer.
    fn agree(&mut self, from: u64, to: u64, told: &str, check: impl Fn(&mut Model, u64) -> Check) {
        let mut refusal = String::new();
        for now in from..=to {
            let mut model = self.model.clone();
            let virtual_now = now + model.shifted;
            match check(&mut model, virtual_now) {
                Ok(()) => {
                    self.model = model;
                    return;
                }
                Err(expected) => refusal = expected,
            }
        }
        panic!("{told}\n{refusal}\n{:?}", self.model);
    }

    /// Every token that there ever was is as the model says at that moment.
    async fn look(&mut self, told: &str) {
        let store = &self.fixture.store;
        for (id, kept) in &self.seen {
            let call = async {
                match kept {
                    Kept::Family(family) => {
                        store
                            .inspect_family(id.0, family.partition, &family.family)
                            .await
                    }
                    Kept::Opaque(opaque) => store.inspect_opaque(id.0, opaque).await,
                }
            };
            let (_, view, to) = self.timed(call).await;
            let view = view.expect("inspect");
            let at = view.as_ref().map_or(to, |view| view.now_ms);
            let mut model = self.model.clone();
            model.settle(at + model.shifted);
            assert_eq!(
                model.view(id, at),
                view,
                "after {told}: {id:?}\n{:?}",
                self.model
            );
        }
    }
}

fn record(partition: usize, subject: Option<Holder>, metadata: Members) -> Record {
    Record {
        partition,
        number: 1,
        since: 0,
        deadline: 0,
        subject,
        metadata,
    }
}

async fn run(steps: Vec<Step>) {
    let mut case = Case::start().await;
    for step in steps {
        case.step(step).await;
    }
    case.fixture.assert_consistent().await;
    for replica in case.others {
        replica.store.stop().await;
    }
    case.fixture.store.stop().await;
}

#[test]
fn the_flows_behave_as_the_model_says() {
    let runtime = Runtime::new().expect("a runtime");
    let cases = std::env::var("PROPTEST_CASES").ok();
    let config = Config {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let strategy = prop::collection::vec(steps(), 1..STEPS_MAX);
    let ran = TestRunner::new(config).run(&strategy, |steps| {
        runtime.block_on(run(steps));
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

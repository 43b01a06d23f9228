//! Random sequences of everything that a pool can be asked for, and of time that passes, compared with a
//! plain model (`oracle.rs`) after every step: answers, states, fences, deadlines to the millisecond, counts.
//!
//! Real milliseconds pass in Redis between the calls, and only Redis knows when a script ran. So its clock
//! is read before and after each call, and the model is tried at each millisecond between: the call is right
//! if it is right for one of them. What the steps before left open is settled by looking at every token.
//!
//! `PROPTEST_CASES` sets the number of cases.

pub mod audit;
mod oracle;

use std::sync::LazyLock;
use std::time::Duration;

use fred::interfaces::LuaInterface;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokend::store::{AssignRequest, GenerateRequest, NewTokens};
use tokend::token::*;
use tokio::runtime::Runtime;

use self::oracle::{Check, Model};
use crate::harness::{Fixture, holder, key, new_namespace, new_token, pool};

/// Cases where `PROPTEST_CASES` says nothing.
const CASES: u32 = 64;
/// Width of the wheel's buckets, to which `Fixture::pass` rounds.
const TICK_MS: u64 = 100;
/// Values that imports choose from, so that they meet.
const VALUES: u8 = 5;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A token by its number among all that the case has ever seen.
#[derive(Debug, Clone, Copy)]
struct Pick(u8);

#[derive(Debug, Clone, Copy)]
enum FencePick {
    None,
    /// The token's own.
    Last,
    /// The one that another token was granted, or one of long ago.
    Wrong,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Ms(u64),
    /// So many ticks behind (or before) the deadline of a token.
    Deadline(Pick, i8),
}

#[derive(Debug, Clone)]
enum Step {
    Generate {
        count: usize,
        key: Option<u8>,
    },
    Import {
        values: Vec<u8>,
        key: Option<u8>,
    },
    Assign {
        token: Option<Pick>,
        holder: Option<u8>,
        lifetime_ms: Option<u64>,
        key: Option<u8>,
    },
    KeepAlive(Pick, FencePick, Option<u64>),
    Unblock(Pick, FencePick),
    Delete(Pick),
    List(Option<State>),
    Put(PolicyPatch),
    MakeAgain,
    Pass(Until),
}

fn durations() -> impl Strategy<Value = u64> {
    prop_oneof![
        select(vec![1, 2, 5, 30, 59, 60, 61, 90, 300]).prop_map(|s| s * SECOND),
        select(vec![SECOND + 1, 61_234, HOUR, DAY, 30 * DAY]),
    ]
}

fn or_none<T: Clone + std::fmt::Debug + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![2 => Just(None), 1 => some.prop_map(Some)]
}

fn zero_or_durations() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), durations()]
}

fn patches() -> impl Strategy<Value = PolicyPatch> {
    (
        or_none(durations()),
        or_none(zero_or_durations()),
        or_none(zero_or_durations()),
        or_none(1..12_u64),
        or_none(zero_or_durations()),
        or_none(select(vec![OnLapse::Recycle, OnLapse::Delete])),
    )
        .prop_map(
            |(lifetime_ms, idle_limit_ms, cooldown_ms, max_tokens, max_hold_ms, on_lapse)| {
                PolicyPatch {
                    lifetime_ms,
                    idle_limit_ms,
                    cooldown_ms,
                    max_tokens,
                    max_hold_ms,
                    on_lapse,
                    shards: None,
                }
            },
        )
}

fn picks() -> impl Strategy<Value = Pick> {
    any::<u8>().prop_map(Pick)
}

fn fences() -> impl Strategy<Value = FencePick> {
    prop_oneof![
        3 => Just(FencePick::None),
        3 => Just(FencePick::Last),
        1 => Just(FencePick::Wrong),
    ]
}

fn keys() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)]
}

fn times() -> impl Strategy<Value = Until> {
    prop_oneof![
        2 => (100..5 * SECOND).prop_map(Until::Ms),
        2 => (5 * SECOND..10 * MINUTE).prop_map(Until::Ms),
        1 => (10 * MINUTE..3 * DAY).prop_map(Until::Ms),
        4 => (picks(), -1..=2_i8).prop_map(|(pick, ticks)| Until::Deadline(pick, ticks)),
    ]
}

/// All that a case is made of is in its steps; what they meet is only known when they run.
struct Steps;

impl ReferenceStateMachine for Steps {
    type State = PolicyPatch;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<PolicyPatch> {
        patches().boxed()
    }

    fn transitions(_: &PolicyPatch) -> BoxedStrategy<Step> {
        prop_oneof![
            3 => (1..4_usize, keys()).prop_map(|(count, key)| Step::Generate { count, key }),
            3 => (prop::collection::vec(0..VALUES, 1..5), keys())
                .prop_map(|(values, key)| Step::Import { values, key }),
            9 => (or_none(picks()), or_none(0..3_u8), or_none(durations()), keys()).prop_map(
                |(token, holder, lifetime_ms, key)| Step::Assign { token, holder, lifetime_ms, key }
            ),
            4 => (picks(), fences(), or_none(durations()))
                .prop_map(|(pick, fence, lifetime)| Step::KeepAlive(pick, fence, lifetime)),
            4 => (picks(), fences()).prop_map(|(pick, fence)| Step::Unblock(pick, fence)),
            2 => picks().prop_map(Step::Delete),
            1 => or_none(select(vec![State::Free, State::Held, State::Cooling]))
                .prop_map(Step::List),
            2 => patches().prop_map(Step::Put),
            1 => Just(Step::MakeAgain),
            8 => times().prop_map(Step::Pass),
        ]
        .boxed()
    }

    fn apply(state: PolicyPatch, _: &Step) -> PolicyPatch {
        state
    }
}

/// The same for a pool that lies in both partitions.
struct SpreadSteps;

const SHARDS: u32 = 2;

impl ReferenceStateMachine for SpreadSteps {
    type State = PolicyPatch;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<PolicyPatch> {
        let spread = |patch: PolicyPatch| PolicyPatch {
            shards: Some(SHARDS),
            max_tokens: patch.max_tokens.map(|max| max.max(SHARDS.into())),
            ..patch
        };
        patches().prop_map(spread).boxed()
    }

    fn transitions(state: &PolicyPatch) -> BoxedStrategy<Step> {
        Steps::transitions(state)
    }

    fn apply(state: PolicyPatch, _: &Step) -> PolicyPatch {
        state
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Every case has a pool of its own in one data set.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| RUNTIME.block_on(Fixture::new()));

struct Case {
    fixture: &'static Fixture,
    pool: PoolName,
    model: Model,
    /// Every token that there ever was.
    seen: Vec<TokenValue>,
    /// Every fence that was ever told.
    fences: Vec<Fence>,
}

/// Redis's clock as scripts count it: the first whole millisecond after this moment.
pub async fn redis_ms(fixture: &Fixture) -> u64 {
    const CLOCK: &str =
        "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) + 1";
    let none: Vec<String> = Vec::new();
    let ms: i64 = fixture
        .redis
        .eval(CLOCK, none.clone(), none)
        .await
        .expect("TIME");
    u64::try_from(ms).expect("after 1970")
}

impl Case {
    async fn start(fixture: &'static Fixture, patch: PolicyPatch) -> Self {
        let pool = pool(&new_namespace());
        fixture
            .store
            .put_pool(&pool, patch.clone())
            .await
            .expect("put");
        Self {
            fixture,
            pool,
            model: Model::new(Policy::FOR_NEW_POOL.with(&patch)),
            seen: (0..VALUES).map(value).collect(),
            fences: Vec::new(),
        }
    }

    fn token(&self, pick: Pick) -> TokenValue {
        self.seen[usize::from(pick.0) % self.seen.len()].clone()
    }

    fn fence(&self, token: &TokenValue, pick: FencePick) -> Option<Fence> {
        let last = self.model.tokens.get(token).map_or(0, |r| r.fence);
        match pick {
            FencePick::None => None,
            FencePick::Last => Fence::parse(last).ok(),
            FencePick::Wrong => self.fences.iter().rev().find(|f| f.get() != last).copied(),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Generate { count, key } => {
                self.generate(NewTokens::Generate(count), key).await;
            }
            Step::Import { values, key } => {
                let values = values.into_iter().map(new_value).collect();
                self.generate(NewTokens::Import(values), key).await;
            }
            Step::Assign {
                token,
                holder: label,
                lifetime_ms,
                key,
            } => {
                let request = AssignRequest {
                    token: token.map(|pick| self.token(pick)),
                    holder: label.and_then(|n| holder(&format!("h{n}"))),
                    lifetime_ms,
                    key: key.and_then(idempotency_key),
                };
                self.assign(request).await;
            }
            Step::KeepAlive(pick, fence, lifetime) => {
                let token = self.token(pick);
                let fence = self.fence(&token, fence);
                let store = &self.fixture.store;
                let call = store.keep_alive(&self.pool, &token, fence, lifetime);
                let (from, answer, to) = self.timed(call).await;
                let answer = answer.expect("keep-alive");
                let check =
                    |m: &mut Model, now| m.keep_alive(now, &token, fence, lifetime, &answer);
                self.agree(from, to, &format!("keep-alive {token}: {answer:?}"), check)
                    .await;
            }
            Step::Unblock(pick, fence) => {
                let token = self.token(pick);
                let fence = self.fence(&token, fence);
                let call = self.fixture.store.unblock(&self.pool, &token, fence);
                let (from, answer, to) = self.timed(call).await;
                let answer = answer.expect("unblock");
                let check = |m: &mut Model, now| m.unblock(now, &token, fence, &answer);
                self.agree(from, to, &format!("unblock {token}: {answer:?}"), check)
                    .await;
            }
            Step::Delete(pick) => {
                let token = self.token(pick);
                let call = self.fixture.store.delete(&self.pool, &token);
                let (from, answer, to) = self.timed(call).await;
                let answer = answer.expect("delete");
                let check = |m: &mut Model, now| m.delete(now, &token, &answer);
                self.agree(from, to, &format!("delete {token}: {answer:?}"), check)
                    .await;
            }
            Step::List(state) => self.list(state).await,
            Step::Put(patch) => self.put(patch).await,
            Step::MakeAgain => self.make_again().await,
            Step::Pass(until) => self.pass(until).await,
        }
    }

    async fn generate(&mut self, tokens: NewTokens, number: Option<u8>) {
        let key = number.and_then(idempotency_key);
        let request = GenerateRequest {
            tokens: tokens.clone(),
            key: key.clone(),
        };
        let call = self.fixture.store.generate(&self.pool, request);
        let (from, answer, to) = self.timed(call).await;
        let answer = answer.expect("generate");
        if let GenerateOutcome::Added { tokens, .. } = &answer {
            let new = tokens.iter().filter(|token| !self.seen.contains(token));
            let new: Vec<_> = new.cloned().collect();
            self.seen.extend(new);
        }
        let told = format!("generate {tokens:?} {key:?}: {answer:?}");
        // Each shard has its own moment at which it adds.
        let shards = self.model.policy.shards;
        let seconds = |first| if shards > 1 { from..=to } else { first..=first };
        let moments =
            (from..=to).flat_map(|first| seconds(first).map(move |second| [first, second]));
        let check = |m: &mut Model, at| m.generate(at, &tokens, key.as_ref(), &answer);
        self.agree_at(moments, &told, check).await;
    }

    async fn assign(&mut self, request: AssignRequest) {
        let call = self.fixture.assign(&self.pool, request.clone());
        let (from, answer, to) = self.timed(call).await;
        if let AssignOutcome::Granted(grant) = &answer {
            self.fences.push(grant.fence);
        }
        let told = format!("assign {request:?}: {answer:?}");
        let took = if self.model.policy.shards > 1 {
            to - from
        } else {
            0
        };
        let check = |m: &mut Model, now| m.assign(now, took, &request, &answer);
        self.agree(from, to, &told, check).await;
    }

    async fn list(&mut self, state: Option<State>) {
        let from = redis_ms(self.fixture).await;
        let mut shown = Vec::new();
        let mut cursor = None;
        loop {
            let store = &self.fixture.store;
            let page = store.list_tokens(&self.pool, state, cursor.as_deref(), 2);
            let page = page
                .await
                .expect("list")
                .expect("the pool")
                .expect("a cursor of its own");
            shown.extend(page.tokens);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let to = redis_ms(self.fixture).await;
        let moments = moments(&self.model, from, to);
        for token in &self.seen {
            let there = shown.iter().find(|view| view.token == *token);
            let expected = |model: &Model| {
                let view = model.view(token);
                view.filter(|view| state.is_none_or(|state| state == view.state))
            };
            let agrees = moments.iter().any(|m| expected(m).as_ref() == there);
            assert!(
                agrees,
                "list {state:?}: {token} {there:?}\n{:?}",
                self.model
            );
        }
        self.agree(to, to, "list", |_, _| Ok(())).await;
    }

    async fn put(&mut self, patch: PolicyPatch) {
        let call = self.fixture.store.put_pool(&self.pool, patch.clone());
        let (from, answer, to) = self.timed(call).await;
        let answer = answer.expect("put");
        let told = format!("put {patch:?}: {answer:?}");
        self.agree(from, to, &told, |m, now| {
            let before = m.policy.clone();
            m.put(now, &patch);
            match &answer {
                PutPoolOutcome::TooFewTokens { shards }
                    if m.policy.max_tokens < u64::from(*shards) =>
                {
                    m.policy = before;
                    Ok(())
                }
                PutPoolOutcome::Changed(view) if view.policy == m.policy => Ok(()),
                _ => Err(format!("expected {:?}", m.policy)),
            }
        })
        .await;
    }

    async fn make_again(&mut self) {
        let store = &self.fixture.store;
        assert!(store.delete_pool(&self.pool).await.expect("delete pool"));
        let gone = store.inspect(&self.pool, &self.seen[0]).await;
        assert_eq!(gone, Ok(InspectOutcome::PoolNotFound));
        let patch = PolicyPatch {
            shards: Some(self.model.policy.shards),
            ..PolicyPatch::default()
        };
        let made = store.put_pool(&self.pool, patch.clone()).await;
        assert!(matches!(made, Ok(PutPoolOutcome::Created(_))), "{made:?}");
        self.model.made_again(Policy::FOR_NEW_POOL.with(&patch));
        let now = redis_ms(self.fixture).await;
        self.agree(now, now, "made again", |_, _| Ok(())).await;
    }

    async fn pass(&mut self, until: Until) {
        let now = redis_ms(self.fixture).await;
        let ms = match until {
            Until::Ms(ms) => ms,
            Until::Deadline(pick, ticks) => {
                let tokens = &self.model.tokens;
                let record = tokens
                    .values()
                    .nth(usize::from(pick.0) % tokens.len().max(1));
                let deadline = record.and_then(|r| r.deadline).unwrap_or(0);
                let away = deadline.saturating_sub(now + self.model.shifted) + TICK_MS;
                away.saturating_add_signed(i64::from(ticks) * TICK_MS.cast_signed())
            }
        };
        let ms = ms.clamp(TICK_MS, 3 * DAY) / TICK_MS * TICK_MS;
        self.fixture
            .pass(&self.pool, Duration::from_millis(ms))
            .await;
        self.model.pass(ms);
        let now = redis_ms(self.fixture).await;
        self.agree(now, now, &format!("{ms} ms pass"), |_, _| Ok(()))
            .await;
    }

    /// Redis's clock before and after a call.
    async fn timed<T>(&self, call: impl Future<Output = T>) -> (u64, T, u64) {
        let from = redis_ms(self.fixture).await;
        let answer = call.await;
        (from, answer, redis_ms(self.fixture).await)
    }

    /// Goes on with what the model makes of the call at some moment from `from` to `to` at which the model
    /// agrees, both with the answer and with how every token and the counts stand afterwards.
    async fn agree(
        &mut self,
        from: u64,
        to: u64,
        told: &str,
        check: impl Fn(&mut Model, u64) -> Check,
    ) {
        let moments = (from..=to).map(|now| [now; 2]);
        let check = |model: &mut Model, [now, _]: [u64; 2]| check(model, now);
        self.agree_at(moments, told, check).await;
    }

    /// The same where a call has two moments, one for each of its shards.
    async fn agree_at(
        &mut self,
        moments: impl Iterator<Item = [u64; 2]>,
        told: &str,
        check: impl Fn(&mut Model, [u64; 2]) -> Check,
    ) {
        let mut refusal = String::new();
        let mut agreed: Vec<Model> = Vec::new();
        for at in moments {
            let mut model = self.model.clone();
            let virtual_at = at.map(|now| now + model.shifted);
            match check(&mut model, virtual_at) {
                Ok(()) if agreed.contains(&model) => {}
                Ok(()) => agreed.push(model),
                Err(expected) => refusal = expected,
            }
        }
        assert!(!agreed.is_empty(), "{told}\n{refusal}\n{:?}", self.model);
        let store = &self.fixture.store;
        let looks = self
            .seen
            .iter()
            .map(|token| store.inspect(&self.pool, token));
        let (from, views, to) = self.timed(join_all(looks)).await;
        let mut views_differ = String::new();
        agreed.retain(
            |model| match agrees_with_views(model, &self.seen, &views, from, to) {
                Ok(()) => true,
                Err(why) => {
                    views_differ = why;
                    false
                }
            },
        );
        assert!(
            !agreed.is_empty(),
            "after {told}\n{views_differ}\n{:?}",
            self.model
        );
        let (_, shown, to) = self.timed(store.show_pool(&self.pool)).await;
        let counts = shown.expect("show").expect("the pool is there").counts;
        agreed.retain(|model| {
            (from..=to).any(|now| {
                let mut model = model.clone();
                model.settle(now + model.shifted);
                model.counts() == counts
            })
        });
        assert!(
            !agreed.is_empty(),
            "after {told}\n{counts:?}\n{:?}",
            self.model
        );
        self.model = agreed.swap_remove(0);
    }
}

/// The model at each millisecond of a call.
fn moments(model: &Model, from: u64, to: u64) -> Vec<Model> {
    let settled = |now| {
        let mut model = model.clone();
        model.settle(now + model.shifted);
        model
    };
    (from..=to).map(settled).collect()
}

/// Each token looks at some moment from `from` to `to` as it was shown.
fn agrees_with_views(
    model: &Model,
    seen: &[TokenValue],
    views: &[Result<InspectOutcome, StoreError>],
    from: u64,
    to: u64,
) -> Check {
    let moments = moments(model, from, to);
    for (token, view) in seen.iter().zip(views) {
        let shown = match view.as_ref().expect("inspect") {
            InspectOutcome::Found(view) => Some(view.clone()),
            InspectOutcome::TokenNotFound => None,
            InspectOutcome::PoolNotFound => panic!("the pool is there"),
        };
        if !moments.iter().any(|model| model.view(token) == shown) {
            let expected = moments.last().map(|model| model.view(token));
            return Err(format!("{token}: shown {shown:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

fn value(number: u8) -> TokenValue {
    new_value(number).value().clone()
}

/// As an import gives it: some in another form than NFC.
fn new_value(number: u8) -> NewToken {
    let letter = if number.is_multiple_of(3) {
        "e\u{301}"
    } else {
        "v"
    };
    new_token(&format!("{letter}{number}"))
}

fn idempotency_key(number: u8) -> Option<IdempotencyKey> {
    key(&format!("k{number}"))
}

struct PoolMachine;

impl StateMachineTest for PoolMachine {
    type SystemUnderTest = Case;
    type Reference = Steps;

    fn init_test(patch: &PolicyPatch) -> Case {
        let fixture = &*FIXTURE;
        RUNTIME.block_on(Case::start(fixture, patch.clone()))
    }

    fn apply(mut case: Case, _: &PolicyPatch, step: Step) -> Case {
        RUNTIME.block_on(case.step(step));
        case
    }

    fn teardown(case: Case, _: PolicyPatch) {
        RUNTIME.block_on(audit::audit(case.fixture, &case.pool));
        let deleted = RUNTIME.block_on(case.fixture.store.delete_pool(&case.pool));
        assert_eq!(deleted, Ok(true));
    }
}

struct SpreadMachine;

impl StateMachineTest for SpreadMachine {
    type SystemUnderTest = Case;
    type Reference = SpreadSteps;

    fn init_test(patch: &PolicyPatch) -> Case {
        PoolMachine::init_test(patch)
    }

    fn apply(case: Case, state: &PolicyPatch, step: Step) -> Case {
        PoolMachine::apply(case, state, step)
    }

    fn teardown(case: Case, state: PolicyPatch) {
        PoolMachine::teardown(case, state);
    }
}

fn config() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok();
    Config {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        // A seed says little of a run in which Redis picks tokens at random: the shrunk case is printed.
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]
    #[test]
    fn a_pool_behaves_as_the_model_says(sequential 1..40 => PoolMachine);

    #[test]
    fn a_pool_of_two_shards_behaves_as_the_model_says(sequential 1..40 => SpreadMachine);
}

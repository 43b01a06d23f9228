//! Properties of what the store reads: what Redis answers, and cursors. See `crate::fuzzing`.

use std::sync::Weak;

use fred::types::Value;

use super::assign::{Assign, AssignRequest, Leg};
use super::batch::Verb;
use super::commit::{Commit, Decision};
use super::delete::Delete;
use super::exchange::{Exchange, ExchangeRequest};
use super::generate::{Generate, GenerateRequest, NewTokens};
use super::inspect::Inspect;
use super::list::{self, Cursor};
use super::register::Entry;
use super::reply::{Answer, Reply};
use super::reserve::{Reserve, Wanted};
use super::shard::Shard;
use super::unblock::Unblock;
use super::wait::{Spot, Step, Wait};
use crate::token::rotating::{ROTATION_RETRY_DEFAULT, Rotating, new_family};
use crate::token::{Fence, IdempotencyKey, Metadata, NewToken, PoolName, StoreError, TokenValue};

/// Stands in each text that Redis answers: it could be a token, so no error may repeat it.
const MARK: &str = "zQ9~";
/// How deep an answer nests; ours do by five.
const DEPTH_MAX: usize = 6;
const TAGS: &[&str] = &[
    "added",
    "replayed",
    "full",
    "mismatch",
    "granted",
    "empty",
    "passed",
    "reserved",
    "let_go",
    "found",
    "absent",
    "rotated",
    "spent",
    "reused",
    "too_large",
    "deleted",
    "cooling",
    "free",
    "not_held",
    "lease_lost",
    "page",
    "stale",
    "other",
];

/// A cursor that is taken is the same when it is given back; an entry of the registry is read or refused.
pub(crate) fn names(text: &str) {
    if let Ok(cursor) = Cursor::parse(Some(text)) {
        assert_eq!(Cursor::parse(Some(&cursor.to_string())), Ok(cursor));
    }
    let _ = Entry::parse(text);
}

/// Whatever Redis answers: each binding reads it or says that it can't, and repeats nothing of it.
///
/// # Panics
/// When that does not hold.
pub fn reply(mut data: &[u8]) {
    if let Err(error) = Answer::parse(value(&mut data, 0)) {
        is_discreet(&error);
    }
    let answer = Value::Array(vec![
        Value::Integer(1),
        Value::Array(Vec::new()),
        Value::Array((0..3).map(|_| tagged(&mut data)).collect()),
        Value::Integer(0),
    ]);
    let shard = || Shard {
        pool: PoolName::default_pool(),
        partition: 0,
        generation: 1,
        version: 1,
    };
    let token = TokenValue::generate;
    decode(&answer, &generate(shard()));
    decode(&answer, &exchange(shard()));
    decode(&answer, &Unblock::new(shard(), token(), None));
    decode(&answer, &wait(shard()));
    for with_metadata in [false, true] {
        let (shard, token) = (shard(), token());
        decode(
            &answer,
            &Inspect {
                shard,
                token,
                with_metadata,
            },
        );
    }
    let (one, token) = (shard(), token());
    decode(&answer, &Delete { shard: one, token });
    over_shards(&answer, &shard);
    for reply in replies(&answer) {
        if let Err(error) = list::decode(reply, 0) {
            is_discreet(&error);
        }
    }
}

fn wait(shard: Shard) -> Wait {
    Wait {
        shard,
        request: AssignRequest::default(),
        waiter: "w1".to_owned(),
        step: Step::Stay,
        spot: Spot::default(),
    }
}

/// What walks and additions over several shards are told.
fn over_shards(answer: &Value, shard: &impl Fn() -> Shard) {
    let request = AssignRequest::default();
    decode(
        answer,
        &Assign::new(shard(), &request, Leg::default(), Weak::new()),
    );
    decode(
        answer,
        &Reserve {
            shard: shard(),
            id: "one".to_owned(),
            ttl_ms: 1,
            wanted: Wanted::These(vec![TokenValue::generate()]),
        },
    );
    decode(
        answer,
        &Commit {
            shard: shard(),
            key: IdempotencyKey::parse("k").expect("a key"),
            fingerprint: String::new(),
            decision: Decision::default(),
        },
    );
}

fn generate(shard: Shard) -> Generate {
    let tokens = ["a", "b"].map(|value| NewToken::parse(value).expect("a value"));
    let request = GenerateRequest {
        tokens: NewTokens::Import(tokens.to_vec()),
        key: None,
    };
    Generate::new(shard, &request)
}

fn exchange(shard: Shard) -> Exchange {
    let token = Rotating {
        partition: 0,
        family: new_family(),
        number: Fence::FIRST,
    };
    let request = ExchangeRequest {
        token,
        metadata: Metadata::default(),
        retry: ROTATION_RETRY_DEFAULT,
        renew: true,
        revoke_on_reuse: false,
    };
    Exchange { shard, request }
}

fn replies(answer: &Value) -> Vec<Reply> {
    Answer::parse(answer.clone()).map_or_else(
        |error| {
            is_discreet(&error);
            Vec::new()
        },
        |answer| answer.replies,
    )
}

fn decode<V: Verb>(answer: &Value, item: &V) {
    for reply in replies(answer) {
        if let Err(error) = item.decode(reply, 1) {
            is_discreet(&error);
        }
    }
}

fn is_discreet(error: &StoreError) {
    assert!(!error.to_string().contains(MARK), "{error}");
}

fn take(data: &mut &[u8], count: usize) -> u64 {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    let digits = taken.iter();
    digits.fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn text(data: &mut &[u8]) -> String {
    let length = usize::try_from(take(data, 1)).unwrap_or(0).min(data.len());
    let (text, rest) = data.split_at(length);
    *data = rest;
    format!("{MARK}{}", String::from_utf8_lossy(text))
}

fn tagged(data: &mut &[u8]) -> Value {
    let tag = TAGS[usize::try_from(take(data, 1)).unwrap_or(0) % TAGS.len()];
    let fields = (0..take(data, 1) % 8).map(|_| value(data, 2));
    let fields: Vec<Value> = fields.collect();
    Value::Array(std::iter::once(tag.into()).chain(fields).collect())
}

fn value(data: &mut &[u8], depth: usize) -> Value {
    match take(data, 1) % 8 {
        0 => Value::Integer(take(data, 8).cast_signed()),
        1 => Value::Integer((take(data, 1)).cast_signed()),
        2 => Value::String(text(data).into()),
        3 => Value::Bytes(text(data).into_bytes().into()),
        4 => Value::String("held".into()),
        5 => Value::Bytes(take(data, 3).to_be_bytes().to_vec().into()),
        6 if depth < DEPTH_MAX => {
            let values = (0..take(data, 1) % 6).map(|_| value(data, depth + 1));
            Value::Array(values.collect())
        }
        _ => Value::Null,
    }
}

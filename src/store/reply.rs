//! Decoding of what scripts answer. An unknown shape is a protocol error, never a panic.

use std::fmt::Debug;

use fred::types::Value;

use crate::token::{Fence, Holder, Metadata, State, StoreError, TokenValue};

/// What every script answers.
pub(super) struct Answer {
    /// Redis's clock, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Deadlines that the call settled on its way.
    pub settled: Vec<Settled>,
    /// One reply per item.
    pub replies: Vec<Reply>,
    /// When the partition's next deadline falls due, if the call looked.
    pub next_turn_ms: Option<u64>,
}

/// Deadlines of one pool that a call settled, all of one kind.
pub(super) struct Settled {
    pub pool: String,
    /// `lapsed`, `cooled` or `idle`.
    pub kind: String,
    /// Milliseconds from each deadline to now.
    pub lags_ms: Vec<u64>,
}

/// One tagged reply; its fields are taken in order.
#[derive(Debug)]
pub(super) struct Reply {
    pub tag: String,
    fields: std::vec::IntoIter<Value>,
}

pub(super) fn protocol(what: &str, seen: &impl Debug) -> StoreError {
    // Only the shape is told: a value could be a token.
    let seen = format!("{seen:?}");
    let shape = seen.split(['(', '"']).next().unwrap_or_default();
    StoreError::Protocol(format!("expected {what}, got {shape}"))
}

fn array(value: Option<Value>) -> Result<Vec<Value>, StoreError> {
    match value {
        Some(Value::Array(values)) => Ok(values),
        other => Err(protocol("an array", &other)),
    }
}

fn int(value: Option<Value>) -> Result<u64, StoreError> {
    match value {
        Some(Value::Integer(number)) => {
            u64::try_from(number).map_err(|_| protocol("a number from 0", &number))
        }
        other => Err(protocol("a number", &other)),
    }
}

fn text(value: Option<Value>) -> Result<String, StoreError> {
    match value {
        Some(Value::String(text)) => Ok(text.to_string()),
        Some(Value::Bytes(bytes)) => {
            String::from_utf8(bytes.to_vec()).map_err(|_| protocol("UTF-8", &"bytes"))
        }
        other => Err(protocol("a text", &other)),
    }
}

/// Names and JSON texts in turn.
pub(super) fn metadata(flat: Vec<Value>) -> Result<Metadata, StoreError> {
    let mut flat = flat.into_iter();
    let mut members = Vec::with_capacity(flat.len() / 2);
    while let Some(name) = flat.next() {
        members.push((text(Some(name))?, text(flat.next())?));
    }
    Metadata::from_stored(members).ok_or_else(|| protocol("JSON", &"another text"))
}

impl Answer {
    pub fn parse(value: Value) -> Result<Self, StoreError> {
        let mut fields = array(Some(value))?.into_iter();
        let now_ms = int(fields.next())?;
        let settled = array(fields.next())?
            .into_iter()
            .map(Settled::parse)
            .collect::<Result<_, _>>()?;
        let replies = array(fields.next())?
            .into_iter()
            .map(Reply::parse)
            .collect::<Result<_, _>>()?;
        let next_turn_ms = Some(int(fields.next())?).filter(|at| *at > 0);
        Ok(Self {
            now_ms,
            settled,
            replies,
            next_turn_ms,
        })
    }

    /// What was settled, as the metrics take it.
    pub fn settled_lags(&self) -> Vec<(&str, &str, &[u64])> {
        let lags = self.settled.iter();
        lags.map(|s| (s.pool.as_str(), s.kind.as_str(), s.lags_ms.as_slice()))
            .collect()
    }

    /// The one reply of a call that is not about a list of items.
    pub fn only(self) -> Result<Reply, StoreError> {
        let mut replies = self.replies.into_iter();
        match (replies.next(), replies.next()) {
            (Some(reply), None) => Ok(reply),
            _ => Err(StoreError::Protocol("expected one reply".to_owned())),
        }
    }
}

impl Settled {
    fn parse(value: Value) -> Result<Self, StoreError> {
        let mut fields = array(Some(value))?.into_iter();
        Ok(Self {
            pool: text(fields.next())?,
            kind: text(fields.next())?,
            lags_ms: array(fields.next())?
                .into_iter()
                .map(|lag| int(Some(lag)))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Reply {
    fn parse(value: Value) -> Result<Self, StoreError> {
        let mut fields = array(Some(value))?.into_iter();
        Ok(Self {
            tag: text(fields.next())?,
            fields,
        })
    }

    /// The fields of an untagged list inside a reply.
    pub fn untagged(value: Value) -> Result<Self, StoreError> {
        Ok(Self {
            tag: String::new(),
            fields: array(Some(value))?.into_iter(),
        })
    }

    pub fn int(&mut self) -> Result<u64, StoreError> {
        int(self.fields.next())
    }

    /// A number in which 0 stands for "none".
    pub fn int_or_none(&mut self) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.int()?).filter(|number| *number > 0))
    }

    pub fn text(&mut self) -> Result<String, StoreError> {
        text(self.fields.next())
    }

    pub fn list(&mut self) -> Result<Vec<Value>, StoreError> {
        array(self.fields.next())
    }

    pub fn token(&mut self) -> Result<TokenValue, StoreError> {
        TokenValue::parse(&self.text()?).map_err(|_| protocol("a token", &"another text"))
    }

    pub fn fence(&mut self) -> Result<Fence, StoreError> {
        Fence::parse(self.int()?).map_err(|_| protocol("a fence", &"another number"))
    }

    pub fn state(&mut self) -> Result<State, StoreError> {
        State::parse(&self.text()?).map_err(|_| protocol("a state", &"another text"))
    }

    /// A holder, or the empty text for none.
    pub fn holder(&mut self) -> Result<Option<Holder>, StoreError> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        Holder::parse_stored(&text)
            .map(Some)
            .map_err(|_| protocol("a holder", &"another text"))
    }

    /// What remains.
    pub fn rest(self) -> impl Iterator<Item = Value> {
        self.fields
    }

    /// The error for a tag that the binding does not know.
    pub fn unknown<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::Protocol(format!("unknown tag {}", self.tag)))
    }
}

//! What must hold of everything that reads what strangers send, whatever the bytes. Each property is a function
//! from bytes that panics where it does not hold, and has two drivers: the tests below, on every run, and a
//! target of the same name in `fuzz/`, for as long as one likes (`make fuzz`).
//!
//! To add a parser (a header, another body): write its property here (or, where it is private to its module, in
//! a function there behind the same `cfg`), name it in the list of `tests.rs`, and copy one of `fuzz_targets/`.
//! A property says more than "does not panic": what is taken reads back as it was, and what is refused is told
//! without repeating it.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::auth::jwt::{JwtKeys, RsaAlgorithm};
use crate::auth::session::{Login, SessionId};
use crate::auth::user::UserName;
use crate::config::{Config, RedisUrl, Secrets, dotenv, variable_names};
use crate::http::fields::{Fields, duration, duration_or_none, fence, text, whole};
pub use crate::http::form::fuzzing::form;
use crate::http::input::parse_object;
use crate::http::problem::Problem;
use crate::http::raw::RawMembers;
pub use crate::store::fuzzing::reply;
use crate::token::rotating::{Keys, Rotating};
use crate::token::{
    DURATION_MS_MAX, DURATION_MS_MIN, Fence, Flow, Holder, IdempotencyKey, Metadata, NewToken,
    PoolName, TokenValue,
};

#[cfg(test)]
mod tests;

/// Most field errors of an answer, and most characters of a name in it.
const ERRORS_MAX: usize = 20;
const NAME_CHARS_MAX: usize = 70;
/// Stands in each secret; no message of ours has it.
const SECRET_MARK: &str = "zQ9~";

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let secrets = [vec![b'a'; 32], vec![b'b'; 32]];
    Keys::new(Flow::OneTime, &secrets).expect("long enough")
});

static JWT_KEYS: LazyLock<JwtKeys> = LazyLock::new(|| {
    let secrets = Secrets(vec![vec![b'a'; 32], vec![b'b'; 32]]);
    let (issuer, audience) = ("https://tokens.example".to_owned(), "api".to_owned());
    let lifetime = Duration::from_secs(900);
    JwtKeys::new(
        &[],
        RsaAlgorithm::Rs256,
        &secrets,
        issuer,
        audience,
        lifetime,
    )
    .expect("keys")
});

/// An access token is taken only as it was signed: bit for bit, but for the bits of base64's last character
/// that mean nothing, which decoders refuse.
///
/// # Panics
/// When that does not hold.
pub fn jwt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert_eq!(JWT_KEYS.verify(&text), None, "nobody has signed that");
    let subject: String = text.chars().take(100).collect();
    let (now_ms, until_ms) = (1_790_000_000_000, 1_800_000_000_000);
    let signed = JWT_KEYS.issue(&subject, "3.family", now_ms, until_ms).token;
    let claims = JWT_KEYS.verify(&signed).expect("ours");
    assert_eq!(
        (claims.sub.as_str(), claims.sid.as_str()),
        (&*subject, "3.family")
    );
    let changed = splice(&signed, data);
    assert_eq!(
        JWT_KEYS.verify(&changed).is_some(),
        changed == signed,
        "{changed}"
    );
}

/// A body whose values are kept as they came: each stands in it as it is told, and a text is read as JSON reads it.
///
/// # Panics
/// When that does not hold.
pub fn raw(data: &[u8]) {
    let Ok(members) = RawMembers::parse(data) else {
        return;
    };
    let Ok(members) = members.each_once() else {
        return;
    };
    let given = std::str::from_utf8(data).expect("JSON is UTF-8");
    for name in ["token", "meta"] {
        let Some(value) = members.get(name) else {
            continue;
        };
        assert!(given.contains(value), "{value} was not given");
        if let Ok(text) = members.text(name) {
            assert_eq!(serde_json::from_str::<Value>(value).expect("JSON"), text);
        }
        metadata(value.as_bytes());
    }
}

/// A token is taken only as it was signed, and says what was signed.
///
/// # Panics
/// When that does not hold.
pub fn rotating(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert_eq!(KEYS.verify(&text), None, "nobody has signed that");
    let mut numbers = data.chunks(8).map(|bytes| {
        let digits = bytes.iter();
        digits.fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte))
    });
    let partition = usize::try_from(numbers.next().unwrap_or(0)).unwrap_or(usize::MAX);
    let number = numbers.next().unwrap_or(0) % Fence::MAX + 1;
    let family: String = text.chars().filter(|c| *c != '.').take(60).collect();
    let token = Rotating {
        partition,
        family: TokenValue::parse(&family).unwrap_or_else(|_| TokenValue::generate()),
        number: Fence::parse(number).expect("in range"),
    };
    let signed = KEYS.sign(&token);
    assert_eq!(KEYS.verify(&signed), Some(token));
    let changed = splice(&signed, data);
    assert_eq!(
        KEYS.verify(&changed).is_some(),
        changed == signed,
        "{changed}"
    );
}

/// The text with some of its characters replaced: the first byte says where, the second how many.
fn splice(original: &str, data: &[u8]) -> String {
    let [at, cut, rest @ ..] = data else {
        return original.to_owned();
    };
    let chars: Vec<char> = original.chars().collect();
    let at = usize::from(*at) % (chars.len() + 1);
    let end = (at + usize::from(*cut) % 8).min(chars.len());
    let new = String::from_utf8_lossy(rest);
    let parts = chars[..at].iter().copied().chain(new.chars());
    parts.chain(chars[end..].iter().copied()).collect()
}

/// Metadata comes back member by member, each value byte for byte, and through the store likewise.
///
/// # Panics
/// When that does not hold.
pub fn metadata(data: &[u8]) {
    let Ok(metadata) = serde_json::from_slice::<Metadata>(data) else {
        return;
    };
    let given = std::str::from_utf8(data).expect("JSON is UTF-8");
    let members = owned(&metadata);
    for (_, value) in &members {
        assert!(given.contains(value.as_str()), "{value} was not given");
    }
    let written = serde_json::to_string(&metadata).expect("metadata is JSON");
    assert!(metadata.bytes() <= written.len(), "counted too large");
    let again: Metadata = serde_json::from_str(&written).expect("what was written");
    assert_eq!(owned(&again), members);
    let stored = Metadata::from_stored(members.clone()).expect("what was stored");
    assert_eq!(owned(&stored), members);
}

fn owned(metadata: &Metadata) -> Vec<(String, String)> {
    let members = metadata.members();
    members.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// A body that is taken is a JSON object without a member twice, and what is read of it is what stands there.
///
/// # Panics
/// When that does not hold.
pub fn body(data: &[u8]) {
    let mut fields = match parse_object(data) {
        Ok(fields) => fields,
        Err(problem) => return is_bounded(&problem),
    };
    let value: Value = serde_json::from_slice(data).expect("what was taken is JSON");
    let token = fields.required("token", text(TokenValue::parse));
    let read_fence = fields.optional("fence", fence);
    let count = fields.optional("count", whole(1, 10_000));
    let lifetime = fields.optional("lifetime", duration);
    let cooldown = fields.optional("cooldown", duration_or_none);
    let holder = fields.optional("holder", text(Holder::parse));
    let tokens = fields
        .has("tokens")
        .then(|| fields.new_tokens("tokens"))
        .flatten();
    let in_range = |ms: &u64| (DURATION_MS_MIN..=DURATION_MS_MAX).contains(ms);
    assert!(lifetime.is_none_or(|ms| in_range(&ms)));
    assert!(cooldown.is_none_or(|ms| ms == 0 || in_range(&ms)));
    match fields.finish(token) {
        Err(problem) => is_bounded(&problem),
        Ok(token) => {
            assert_eq!(value["token"], token.as_str());
            assert_eq!(value["fence"].as_u64(), read_fence.map(Fence::get));
            assert_eq!(value["count"].as_u64(), count);
            let given = value["holder"].as_str();
            assert_eq!(given.map(|it| Holder::parse(it).ok()), holder.map(Some));
            let tokens = tokens.iter().flatten();
            let tokens = tokens.map(|token| token.given().as_str());
            let given = value["tokens"].as_array().into_iter().flatten();
            assert!(tokens.eq(given.filter_map(Value::as_str)));
        }
    }
}

fn is_bounded(problem: &Problem) {
    assert!(problem.errors().len() <= ERRORS_MAX);
    for error in problem.errors() {
        assert!(error.field.chars().count() <= NAME_CHARS_MAX);
    }
}

/// A query says what was written into it, and nothing is put in place of what can't be read.
///
/// # Panics
/// When that does not hold.
pub fn query(data: &[u8]) {
    let given = String::from_utf8_lossy(data);
    let read = |query: &str| {
        let mut fields = Fields::from_query(query);
        let token = fields.required("token", text(|text| Ok(text.to_owned())));
        fields.finish(token)
    };
    match read(&given) {
        Err(problem) => is_bounded(&problem),
        Ok(token) => {
            let upper = given.to_ascii_uppercase();
            let meant = upper.matches("%EF%BF%BD").count() + given.matches('\u{fffd}').count();
            // `%EF`, then the two other bytes as they are, can't be written in a text.
            assert!(token.matches('\u{fffd}').count() <= meant, "{given}");
        }
    }
    let escaped: String = given.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let again = read(&format!("token={escaped}")).expect("well escaped");
    assert_eq!(again, *given);
}

/// Each name is kept as it was given or in NFC, and none can be mistaken for a part of a key or for a flow's pool.
///
/// # Panics
/// When that does not hold.
pub fn names(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    if let Ok(pool) = PoolName::parse(text) {
        assert_eq!(pool.as_str(), text);
        assert_eq!(pool.flow(), None);
        assert!(!text.contains([':', '{', '}', '_', ' ']));
        assert_eq!(PoolName::parse_stored(text), Ok(pool));
    }
    if let Ok(token) = TokenValue::parse(text) {
        assert_eq!(token.as_str(), text);
        assert!(!text.contains(['\0', '\n', '\r']));
    }
    new_names(text);
    if let Ok(key) = IdempotencyKey::parse(text) {
        assert!(text.is_ascii() && key.as_str() == text && text.trim() == text);
    }
    if let Ok(lifetime) = crate::cli::duration::lifetime(text) {
        let ms = u64::try_from(lifetime.as_millis()).expect("short");
        assert!((DURATION_MS_MIN..=DURATION_MS_MAX).contains(&ms));
    }
    if let Ok(user) = UserName::parse(text) {
        assert_eq!(user.as_str(), text);
        assert!(!text.contains([':', '\n']));
    }
    if let Ok(user) = UserName::prepare(text) {
        assert_eq!(UserName::prepare(user.as_str()), Ok(user));
    }
    let stored = Holder::parse_stored(text).ok();
    if let Some(login) = stored.and_then(|it| Login::parse(&it)) {
        assert_eq!(Login::parse(&login.label()), Some(login));
    }
    if let Some(session) = SessionId::parse(text) {
        assert_eq!(session.to_string(), text);
    }
    if let Ok(url) = RedisUrl::parse(text) {
        assert!(!url.expose().is_empty());
    }
    crate::store::fuzzing::names(text);
}

/// The strict rule takes less than the loose one, and what it makes of a text it takes again as it is.
fn new_names(text: &str) {
    if let Ok(new) = NewToken::parse(text) {
        assert_eq!(TokenValue::parse(text).as_ref(), Ok(new.given()));
        let again = NewToken::parse(new.value().as_str()).expect("taken before");
        assert_eq!((again.given(), again.value()), (new.value(), new.value()));
        assert_eq!(new.value().nfc(), None);
        assert_eq!(text.trim(), text);
    }
    if let Ok(holder) = Holder::parse(text) {
        assert!(Holder::parse_stored(text).is_ok());
        assert_eq!(Holder::parse(holder.as_str()).as_ref(), Ok(&holder));
    }
}

/// Whatever stands in `.env`: it is read, or its mistakes are reported, and no message and no Debug shows a value that
/// may be a secret or a URL.
///
/// # Panics
/// When that does not hold.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let known = variable_names();
    let read = dotenv::parse(&text, |name| known.contains(name), |_| None);
    // In double quotes each text can be written.
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "\\$");
    let quoted = dotenv::parse(&format!("X=\"{escaped}\" # c"), |_| false, |_| None);
    assert_eq!(quoted.variables.get("X").map(String::as_str), Some(&*text));
    let mut vars = read.variables;
    // What a file's name leads to is not for a test to decide.
    vars.retain(|name, _| !name.ends_with("_FILE"));
    let shown = |vars| match Config::from_vars(vars) {
        Ok(config) => format!("{config:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    let url = format!("http://collector:4318/?key={SECRET_MARK}");
    for (name, value) in [
        ("SECRET_KEY", SECRET_MARK.repeat(8)),
        ("JWT_PRIVATE_KEY_FILE", SECRET_MARK.to_owned()),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization={SECRET_MARK}"),
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
    ] {
        vars.insert(name.to_owned(), value);
    }
    let mut all = shown(vars.clone());
    for name in [
        "REDIS_URL",
        "SECRET_KEY",
        "REFRESH_TOKEN_SECRET",
        "JWT_SECRET",
        "JWT_PRIVATE_KEY_FILE",
        "PUBLIC_URL",
        "TRUSTED_PROXIES",
        "CORS_ORIGINS",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        vars.insert(name.to_owned(), format!("{SECRET_MARK}{text}"));
    }
    all.push_str(&shown(vars));
    // What is no secret may have come with the same text.
    assert!(
        text.contains(SECRET_MARK) || !all.contains(SECRET_MARK),
        "{all}"
    );
}

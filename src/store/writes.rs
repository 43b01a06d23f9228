//! Whether a primary takes what scripts write. One can answer, and refuse every change: it has become a replica, lacks
//! the replicas that it wants, or has forgotten what its user may do.

use fred::error::{Error, ErrorKind};
use fred::interfaces::LuaInterface as _;

use super::Inner;
use super::redis::{Node, code, is_passing};

/// Writes, and changes nothing: its key is a partition's guard, which never exists.
const PROBE: &str = "return redis.call('DEL', KEYS[1])";

/// Why nothing is written there.
pub(super) struct Refusal {
    /// For people.
    pub why: String,
    /// Whether nothing else is of use there either.
    pub of_all: bool,
}

/// Asks by a write that changes nothing. `None` also where the question had no answer: that is for others to tell.
pub(super) async fn refusal(inner: &Inner, node: &Node) -> Option<Refusal> {
    let mut partitions = inner.keys.partitions.iter();
    let there = partitions.find(|it| inner.redis.owns(node, it.slot))?;
    let keys = vec![there.guard.clone()];
    let asked: Result<i64, _> = node.client().eval(PROBE, keys, Vec::<String>::new()).await;
    judge(&asked.err()?)
}

fn judge(error: &Error) -> Option<Refusal> {
    let unsaid = matches!(
        error.kind(),
        ErrorKind::IO
            | ErrorKind::Timeout
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Backpressure
            | ErrorKind::Cluster
    );
    // It will be another's, or be well in a moment.
    let passing = match code(error) {
        "READONLY" => false, // a call may pass to another primary, but this one takes no writes
        "BUSY" => true,
        _ => is_passing(error),
    };
    (!unsaid && !passing).then(|| Refusal {
        why: error.details().to_owned(),
        of_all: matches!(code(error), "NOPERM" | "READONLY"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_redis_says_of_writes_is_a_refusal() {
        let judged = |kind, text: &'static str| judge(&Error::new(kind, text));
        let other = ErrorKind::Unknown;
        for (text, of_all) in [
            ("NOREPLICAS Not enough good replicas to write.", false),
            ("MISCONF Errors writing to the AOF file", false),
            (
                "READONLY You can't write against a read only replica.",
                true,
            ),
            ("NOPERM this user has no permissions to run 'eval'", true),
        ] {
            let refusal = judged(other.clone(), text).expect(text);
            assert_eq!(refusal.of_all, of_all, "{text}");
            assert_eq!(refusal.why, text);
        }
        for text in ["MOVED 1 a:1", "LOADING Redis is loading", "BUSY a script"] {
            assert!(judged(other.clone(), text).is_none(), "{text}");
        }
        for kind in [ErrorKind::Timeout, ErrorKind::IO, ErrorKind::Canceled] {
            assert!(judged(kind, "NOREPLICAS").is_none());
        }
    }
}

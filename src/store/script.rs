//! The scripts: one file each in `lua/`, the prelude put behind its first line.

use std::sync::Arc;

use fred::util::sha1_hash;

/// A script as Redis knows it.
pub(super) struct Script {
    /// The verb: also the file's name, the metric's label and the binding's name.
    pub name: &'static str,
    pub source: String,
    /// SHA-1 of the source, by which EVALSHA calls it.
    pub hash: String,
    /// Whether it writes. One that does not may be repeated whatever became of the first.
    pub writes: bool,
}

/// Scripts that write, but whose answer promises nobody anything that a failover must not undo: replicas are not
/// waited for. (Of a policy the registry's entry is what counts: a shard that has lost it is given it again.)
const UNTOLD: &[&str] = &["attempt", "beat", "count", "set_pool", "sweep"];

const PRELUDE: &str = include_str!("../../lua/prelude.lua");

impl Script {
    fn new(name: &'static str, text: &str) -> Self {
        let (first, rest) = text.split_once('\n').expect("a first line");
        let source = format!("{first}\n{PRELUDE}\n{rest}");
        Self {
            name,
            hash: sha1_hash(&source),
            source,
            writes: !first.contains("no-writes"),
        }
    }

    /// Whether its answer is told to callers as done.
    pub fn is_told(&self) -> bool {
        self.writes && !UNTOLD.contains(&self.name)
    }

    /// A script that uses nothing of the prelude (it touches no partition).
    fn bare(name: &'static str, text: &str) -> Self {
        Self {
            name,
            source: text.to_owned(),
            hash: sha1_hash(text),
            writes: true,
        }
    }
}

macro_rules! scripts {
    ($($name:ident = $make:ident $file:literal;)*) => {
        /// Every script, made once per store.
        pub(super) struct Scripts { $(pub $name: Arc<Script>,)* }

        impl Scripts {
            pub fn new() -> Self {
                Self { $($name: Arc::new(Script::$make(
                    stringify!($name),
                    include_str!(concat!("../../lua/", $file)),
                )),)* }
            }

            pub fn all(&self) -> Vec<&Arc<Script>> {
                vec![$(&self.$name,)*]
            }
        }
    };
}

scripts! {
    assign = new "assign.lua";
    attempt = new "attempt.lua";
    beat = bare "beat.lua";
    commit = new "commit.lua";
    count = new "count.lua";
    delete = new "delete.lua";
    drop_pool = new "drop_pool.lua";
    exchange = new "exchange.lua";
    generate = new "generate.lua";
    inspect = new "inspect.lua";
    keep_alive = new "keep_alive.lua";
    layout = bare "layout.lua";
    list = new "list.lua";
    register = bare "register.lua";
    reserve = new "reserve.lua";
    set_pool = new "set_pool.lua";
    set_user = bare "set_user.lua";
    sweep = new "sweep.lua";
    unblock = new "unblock.lua";
    wait = new "wait.lua";
}

//! Three primaries, each with a replica, and their 16,384 slots.

use super::sentinel::in_sync;
use super::server::OwnRedis;
use super::{eventually, eventually_some};

const PRIMARIES: usize = 3;
const NODES: usize = 2 * PRIMARIES;
const SLOTS: usize = 16_384;
const ARGS: &[&str] = &[
    "--cluster-enabled",
    "yes",
    // A node that has not answered for this long is down.
    "--cluster-node-timeout",
    "2000",
    // A primary without a disk need not wait for more replicas before it sends its data.
    "--repl-diskless-sync-delay",
    "0",
];
/// Longest that one key may take to move, in ms.
const MOVE_MS_MAX: &str = "1000";

/// The first three nodes are primaries at the start, node n + 3 is the replica of node n.
pub struct Cluster {
    pub nodes: Vec<OwnRedis>,
    ids: Vec<String>,
}

/// One line of CLUSTER NODES.
struct Line {
    id: String,
    flags: String,
    primary: String,
    epoch: u64,
    slots: Vec<(usize, usize)>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Self {
            id: (*words.first()?).to_owned(),
            flags: (*words.get(2)?).to_owned(),
            primary: (*words.get(3)?).to_owned(),
            epoch: words.get(6)?.parse().ok()?,
            // What stands in brackets is a slot on the move, listed by its owner too.
            slots: words.get(8..)?.iter().filter_map(range).collect(),
        })
    }

    fn has(&self, slot: usize) -> bool {
        self.slots
            .iter()
            .any(|&(first, last)| (first..=last).contains(&slot))
    }
}

impl Cluster {
    /// Formed, whole and in sync. `args` go to each node. None if there is no redis-server here.
    pub async fn start(args: &[&str]) -> Option<Self> {
        let args = [ARGS, args].concat();
        let mut nodes = Vec::new();
        let mut ids = Vec::new();
        while nodes.len() < NODES {
            let node = OwnRedis::start(&args).await?;
            ids.push(told(&node, &["CLUSTER", "MYID"]).await);
            nodes.push(node);
        }
        let cluster = Self { nodes, ids };
        cluster.form().await;
        cluster.whole().await;
        Some(cluster)
    }

    async fn form(&self) {
        // All of them before any meets another: one that knows another takes no epoch any more.
        for (n, node) in self.nodes.iter().enumerate() {
            let epoch = (n + 1).to_string();
            told(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        }
        for (n, node) in self.nodes.iter().enumerate() {
            // Each tells all behind it, which is quicker than that they hear of each other.
            for other in &self.nodes[n + 1..] {
                let port = other.port.to_string();
                told(node, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
            }
        }
        for n in 0..PRIMARIES {
            let first = (n * SLOTS / PRIMARIES).to_string();
            let last = ((n + 1) * SLOTS / PRIMARIES - 1).to_string();
            let add = ["CLUSTER", "ADDSLOTSRANGE", &first, &last];
            told(&self.nodes[n], &add).await;
            let replicate = ["CLUSTER", "REPLICATE", &self.ids[n]];
            let replica = &self.nodes[n + PRIMARIES];
            eventually("a replica knows its primary", async || {
                replica.command(&replicate).await.is_ok()
            })
            .await;
        }
    }

    pub fn url(&self) -> String {
        let mut url = format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port);
        for (n, node) in self.nodes.iter().enumerate().skip(1) {
            let joint = if n == 1 { '?' } else { '&' };
            url += &format!("{joint}node=127.0.0.1:{}", node.port);
        }
        url
    }

    /// Waits until every node says that all is well, and every replica is in sync and known to all.
    pub async fn whole(&self) {
        eventually("the cluster is whole", async || {
            self.is_whole().await.is_some()
        })
        .await;
    }

    async fn is_whole(&self) -> Option<()> {
        for node in &self.nodes {
            let state = node.command(&["CLUSTER", "INFO"]).await.ok()?.text();
            state.contains("cluster_state:ok").then_some(())?;
            let seen = self.seen_by(node).await?;
            let well = |it: &Line| !it.flags.contains("fail") && !it.flags.contains("handshake");
            (seen.len() == NODES && seen.iter().all(well)).then_some(())?;
            let replicas = seen.iter().filter(|it| it.flags.contains("slave"));
            (replicas.count() == NODES - PRIMARIES).then_some(())?;
            if let Some(primary) = self.followed(&seen) {
                in_sync(node, primary.port).await?;
            }
        }
        Some(())
    }

    /// The cluster as one node sees it, its own line included.
    async fn seen_by(&self, node: &OwnRedis) -> Option<Vec<Line>> {
        let text = node.command(&["CLUSTER", "NODES"]).await.ok()?.text();
        text.lines().map(Line::parse).collect()
    }

    /// Whom the node with this view follows.
    fn followed(&self, seen: &[Line]) -> Option<&OwnRedis> {
        let own = seen.iter().find(|it| it.flags.contains("myself"))?;
        Some(&self.nodes[self.index(&own.primary)?])
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.ids.iter().position(|it| it == id)
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> usize {
        eventually_some("a node tells a key's slot", async || {
            for node in &self.nodes {
                if let Ok(slot) = node.command(&["CLUSTER", "KEYSLOT", key]).await {
                    return slot.text().parse().ok();
                }
            }
            None
        })
        .await
    }

    /// Who owns a slot, once somebody alive says that it does.
    pub async fn owner(&self, slot: usize) -> usize {
        eventually_some("a slot has an owner", async || self.owner_now(slot).await).await
    }

    /// Of two that claim a slot, the one with the later claim: the other has not heard of it yet.
    async fn owner_now(&self, slot: usize) -> Option<usize> {
        let mut latest = None;
        for (n, node) in self.nodes.iter().enumerate() {
            let seen = self.seen_by(node).await.unwrap_or_default();
            let own = seen.into_iter().find(|it| it.flags.contains("myself"));
            let claims = |it: &Line| it.flags.contains("master") && it.has(slot);
            if let Some(own) = own.filter(claims) {
                latest = latest.max(Some((own.epoch, n)));
            }
        }
        latest.map(|(_, n)| n)
    }

    /// Who follows a primary, as it tells itself.
    pub async fn replica(&self, primary: usize) -> usize {
        eventually_some("a primary has a replica", async || {
            let seen = self.seen_by(&self.nodes[primary]).await?;
            let line = seen.iter().find(|it| it.primary == self.ids[primary])?;
            self.index(&line.id)
        })
        .await
    }

    /// Waits until another node than this one owns a slot, and every node that answers agrees and serves.
    pub async fn taken_over(&self, slot: usize, from: usize) -> usize {
        eventually_some("another node owns the slot", async || {
            let owner = self.owner_now(slot).await.filter(|&now| now != from)?;
            self.all_see(slot, owner).await.then_some(owner)
        })
        .await
    }

    async fn all_see(&self, slot: usize, owner: usize) -> bool {
        for node in &self.nodes {
            let Some(seen) = self.seen_by(node).await else {
                continue; // dead or paused: it has no say
            };
            let Ok(state) = node.command(&["CLUSTER", "INFO"]).await else {
                continue;
            };
            let agrees = seen
                .iter()
                .any(|it| it.id == self.ids[owner] && it.flags.contains("master") && it.has(slot));
            if !agrees || !state.text().contains("cluster_state:ok") {
                return false;
            }
        }
        true
    }

    /// Begins to move a slot: from now on its owner answers ASK for keys that are gone.
    pub async fn migrate(&self, slot: usize, to: usize) -> Migration<'_> {
        let from = self.owner(slot).await;
        let migration = Migration {
            cluster: self,
            slot: slot.to_string(),
            from,
            to,
        };
        let importing = ["IMPORTING", &self.ids[from]];
        migration.set(to, &importing).await;
        migration.set(from, &["MIGRATING", &self.ids[to]]).await;
        migration
    }
}

/// A slot on its way, moved on by the one who holds this.
pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: String,
    pub from: usize,
    pub to: usize,
}

impl Migration<'_> {
    async fn set(&self, node: usize, what: &[&str]) {
        let args = [&["CLUSTER", "SETSLOT", &self.slot], what].concat();
        told(&self.cluster.nodes[node], &args).await;
    }

    /// Moves at most so many keys. Says how many are left.
    pub async fn move_keys(&self, count: usize) -> usize {
        let source = &self.cluster.nodes[self.from];
        let ask = ["CLUSTER", "GETKEYSINSLOT", &self.slot, &count.to_string()];
        let keys = source.command(&ask).await.expect("keys of a slot").texts();
        let port = self.cluster.nodes[self.to].port.to_string();
        let to = ["MIGRATE", "127.0.0.1", &port, "", "0", MOVE_MS_MAX, "KEYS"];
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            told(source, &[&to[..], &keys].concat()).await;
        }
        let left = told(source, &["CLUSTER", "COUNTKEYSINSLOT", &self.slot]).await;
        left.parse().expect("a number")
    }

    /// Moves what is left, and makes the new owner known.
    pub async fn finish(self) {
        const AT_ONCE: usize = 100;
        while self.move_keys(AT_ONCE).await > 0 {}
        let owner = ["NODE", &self.cluster.ids[self.to]];
        // The new owner first: else nobody would own it for a moment.
        self.set(self.to, &owner).await;
        self.set(self.from, &owner).await;
        let slot = self.slot.parse().expect("a number");
        self.cluster.taken_over(slot, self.from).await;
    }
}

async fn told(node: &OwnRedis, args: &[&str]) -> String {
    let told = node.command(args).await;
    told.unwrap_or_else(|error| panic!("{args:?}: {error}"))
        .text()
}

//! Who serves which slot, kept true.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::Server;
use rand::RngExt;
use tracing::{debug, info, warn};

use super::Redis;
use super::node::{self, Node, end_of};
use super::topology::{Deployment, View, config_for, newest};
use crate::store::keys::SLOTS;
use crate::store::prepare::Reason;

/// How often to ask for the topology while nothing is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest pause between two looks while something is.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Until then it is no news that somebody could not be asked: connections are being made.
const SETTLED: Duration = Duration::from_secs(1);
/// For how long it is that short. What takes longer than a failover is not found sooner by asking more.
const LOOK_HARD: Duration = Duration::from_secs(30);

/// Who serves which slot, as far as is known.
pub(super) struct Map {
    pub nodes: Vec<Arc<Node>>,
    /// Per slot, its place in `nodes`.
    pub owners: Vec<Option<u16>>,
    pub epoch: u64,
}

impl Map {
    pub fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let place = *self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(place?))
    }
}

impl Redis {
    pub(super) fn set_map(&self, nodes: Vec<Arc<Node>>, owners: Vec<Option<u16>>, epoch: u64) {
        let map = Arc::new(Map {
            nodes,
            owners,
            epoch,
        });
        let mut current = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, map.clone());
        drop(current);
        let known =
            |nodes: &[Arc<Node>], node: &Arc<Node>| nodes.iter().any(|n| Arc::ptr_eq(n, node));
        for node in map.nodes.iter().filter(|node| !known(&before.nodes, node)) {
            // Its receiver lives as long as the store.
            let _ = self.announce.send(node.clone());
        }
        for gone in before.nodes.iter().filter(|node| !known(&map.nodes, node)) {
            let gone = gone.clone();
            tokio::spawn(async move { gone.retire().await });
        }
    }

    /// Asks again and again who serves what, until the stop.
    pub(super) async fn watch_topology(self: Arc<Self>, mut deployment: Deployment) {
        let mut stopping = self.stop_signal();
        if let Deployment::Sentinel { clients, .. } = &deployment {
            for client in clients {
                node::keep_connected(client.clone(), self.stop_signal());
            }
        }
        let mut well_at = Instant::now();
        let mut reason = Reason::default();
        while !self.stopping() {
            let map = self.map();
            let well = !map.nodes.is_empty() && map.nodes.iter().all(|node| node.is_usable());
            let mut connected: Vec<Client> =
                map.nodes.iter().map(|node| node.client().clone()).collect();
            connected.retain(ClientLike::is_connected);
            if well {
                well_at = Instant::now();
                let one = rand::rng().random_range(0..connected.len().max(1));
                connected = connected.into_iter().skip(one).take(1).collect();
            }
            let told = deployment.ask(&self.config, &connected).await;
            let (views, failures): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
            if let Some(why) = failures.into_iter().find_map(Result::err) {
                self.note_unknown(why, views.is_empty() && self.age() >= SETTLED, &mut reason);
            }
            if let Some(view) = newest(views.into_iter().flatten().collect()) {
                deployment.remember(&view);
                // An older view than the one that is known: the one asked may be cut off. All are asked next.
                if view.epoch < map.epoch && well {
                    self.look.notify_one();
                } else {
                    self.apply(&map, &view);
                }
            }
            let hard = !well && well_at.elapsed() < LOOK_HARD;
            let pause = if hard { LOOK_PAUSE } else { LOOK_EVERY };
            tokio::select! {
                () = self.look.notified() => tokio::time::sleep(pause.min(2 * LOOK_PAUSE)).await,
                () = tokio::time::sleep(pause) => {}
                () = end_of(&mut stopping) => {}
            }
        }
        if let Deployment::Sentinel { clients, .. } = &deployment {
            for client in clients {
                node::quit(client).await;
            }
        }
    }

    /// Why the primaries are not known, or not for sure.
    fn note_unknown(&self, why: String, nobody_knows: bool, reason: &mut Reason) {
        if nobody_knows && reason.is_new(&why) {
            warn!("nobody tells who Redis's primaries are: {why}");
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        *unknown = Some(why);
    }

    /// How many slots no primary is known for.
    pub fn uncovered(&self) -> usize {
        self.map()
            .owners
            .iter()
            .filter(|owner| owner.is_none())
            .count()
    }

    /// Makes the map what the view says. Primaries that are known keep their connections.
    fn apply(&self, before: &Map, view: &View) {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let mut owners = vec![None; usize::from(SLOTS)];
        for (from, to, server) in &view.ranges {
            let place = match nodes.iter().position(|node| node.server == *server) {
                Some(place) => place,
                None => {
                    let known = before.nodes.iter().find(|node| node.server == *server);
                    let node = match known {
                        Some(node) => node.clone(),
                        None => match self.connect(server) {
                            Some(node) => node,
                            None => continue,
                        },
                    };
                    nodes.push(node);
                    nodes.len() - 1
                }
            };
            // There are fewer nodes than slots.
            let place = u16::try_from(place).ok();
            owners[usize::from(*from)..=usize::from(*to)].fill(place);
        }
        let same = owners == before.owners
            && nodes.len() == before.nodes.len()
            && nodes
                .iter()
                .zip(&before.nodes)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            let names: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            info!(
                primaries = names.join(" "),
                epoch = view.epoch,
                "Redis's primaries"
            );
            self.set_map(nodes, owners, view.epoch);
        } else if view.epoch != before.epoch {
            self.set_map(nodes, owners, view.epoch);
        }
    }

    fn connect(&self, server: &Server) -> Option<Arc<Node>> {
        let config = config_for(&self.config, server.clone());
        let of_cluster = self.config.server.is_clustered();
        let node = Node::start(config, of_cluster, self.durability, self.look.clone());
        node.map_err(|error| debug!(%error, "connecting")).ok()
    }
}

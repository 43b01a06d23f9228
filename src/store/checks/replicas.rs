//! Whether the replicas that run, and the settings of this environment, are alike where they must be.

use std::sync::Arc;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, SortedSetsInterface};

use super::{Finding, Grade};
use crate::store::Inner;
use crate::store::duty::ALIVE_MS;
use crate::store::keys::slot_of;
use crate::store::redis::{Node, in_words};
use crate::store::settings::{Difference, Shared, differences_of_any, names};

const CHECK: &str = "settings";

/// What there is to say of the replicas, on the primary that knows them.
pub(in crate::store) async fn look_at_replicas(inner: &Inner, node: &Arc<Node>) -> Vec<Finding> {
    if !inner.redis.owns(node, slot_of(&inner.keys.replicas)) {
        return Vec::new();
    }
    match read(inner, node.client()).await {
        Ok(said) => judge(&inner.shared, &said),
        Err(error) => vec![Finding::new(CHECK, Grade::Info, in_words(&error))],
    }
}

/// What each replica that is alive says of its settings.
async fn read(inner: &Inner, primary: &Client) -> Result<Vec<Option<Shared>>, Error> {
    let (replicas, settings) = (inner.keys.replicas.as_str(), inner.keys.settings.as_str());
    let known: Vec<(String, f64)> = primary
        .zrange(replicas, 0, -1, None, false, None, true)
        .await?;
    let time: Vec<i64> = primary
        .custom(fred::cmd!("TIME"), Vec::<String>::new())
        .await?;
    let now_ms = time.first().copied().unwrap_or_default() * 1_000
        + time.get(1).copied().unwrap_or_default() / 1_000;
    let left_ms = |until: f64| until - now_ms as f64;
    let alive = known
        .into_iter()
        .filter(|(_, until)| (0.0..=ALIVE_MS as f64).contains(&left_ms(*until)));
    let alive: Vec<String> = alive.map(|(id, _)| id).collect();
    if alive.is_empty() {
        return Ok(Vec::new());
    }
    let said: Vec<Option<String>> = primary.hmget(settings, alive).await?;
    Ok(said.into_iter().map(|text| Shared::parse(&text?)).collect())
}

fn judge(here: &Shared, said: &[Option<Shared>]) -> Vec<Finding> {
    let known: Vec<_> = said.iter().flatten().collect();
    let all: Vec<_> = [here].into_iter().chain(known.iter().copied()).collect();
    let mut findings: Vec<_> = differences_of_any(&all).iter().map(differs).collect();
    if said.is_empty() {
        let found = "no replica of this data set is running";
        findings.push(Finding::new(CHECK, Grade::Info, found));
    } else if findings.is_empty() && !known.is_empty() {
        let found = format!("the same: {}", names(&all));
        findings.push(Finding::new(CHECK, Grade::Ok, found));
    }
    let silent = said.len() - known.len();
    if silent > 0 {
        let found = format!("not known of {silent}: replicas of older versions");
        findings.push(Finding::new(CHECK, Grade::Info, found));
    }
    findings
}

fn differs(difference: &Difference<'_>) -> Finding {
    let variable = difference.variable;
    let found = format!("{variable} differs: {difference}");
    Finding::new(CHECK, Grade::Warn, found).mend(if difference.is_of_keys() {
        format!(
            "append the missing key to {variable} of each replica that lacks it and restart these; do not remove a key \
             that another replica signs with"
        )
    } else {
        format!("give every replica the same {variable}, and restart those that have another")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Setting, Settings};

    fn shared(name: &str, url: &str) -> Shared {
        let setting = ("PUBLIC_URL".to_owned(), Setting::Value(url.to_owned()));
        Shared::new(name.to_owned(), Settings::from([setting]))
    }

    fn told(here: &Shared, said: &[Option<Shared>]) -> Vec<(Grade, String)> {
        let findings = judge(here, said).into_iter();
        findings.map(|it| (it.grade, it.found)).collect()
    }

    #[test]
    fn each_difference_of_any_two_is_a_finding() {
        let here = shared("here", "x");
        let differs = |told: &str| (Grade::Warn, format!("PUBLIC_URL differs: {told}"));
        let (a, b) = (Some(shared("a", "x")), Some(shared("b", "y")));
        assert_eq!(told(&here, &[]).len(), 1);
        let same = (Grade::Ok, "the same: here, a".to_owned());
        assert_eq!(told(&here, std::slice::from_ref(&a)), [same]);
        let both = [a, b.clone()];
        assert_eq!(told(&here, &both), [differs("x (here, a); y (b)")]);
        // Of this environment nothing is known.
        assert_eq!(told(&Shared::default(), &both), [differs("x (a); y (b)")]);
        let silent = told(&here, &[None, b]);
        assert_eq!(silent.len(), 2);
        assert_eq!(silent[1].0, Grade::Info, "{silent:?}");
    }
}

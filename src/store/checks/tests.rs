use super::*;

const REPLICATED: Durability = Durability::Replicated {
    replicas: 2,
    timeout_ms: 500,
};

/// A Redis as it should be.
fn good() -> Facts {
    Facts {
        clustered: false,
        full_coverage: None,
        version: Some("7.0.15".to_owned()),
        role: Some("master".to_owned()),
        used_memory: Some(99),
        maxmemory: Some(0),
        maxmemory_policy: Some("noeviction".to_owned()),
        append_only: Some(true),
        append_fsync: Some("always".to_owned()),
        connected_replicas: Some(2),
        min_replicas_to_write: Some(2),
        notify: Some("Kx".to_owned()),
        clock_bounds_ms: Some((-2, 3)),
        replicas: Vec::new(),
        replica_clocks: Vec::new(),
    }
}

/// The one finding that is not ok, after a change to what is good.
fn only(durability: Durability, change: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = good();
    change(&mut facts);
    let mut findings = judge(&facts, durability);
    findings.retain(|finding| finding.grade != Grade::Ok);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn is_refused(change: impl FnOnce(&mut Facts)) -> bool {
    let mut facts = good();
    change(&mut facts);
    refused(&facts, true).is_some()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn one_that_is_full_fails_and_one_that_is_nearly_full_warns() {
    let grade = |used| {
        let facts = Facts {
            used_memory: Some(used),
            maxmemory: Some(1_000),
            ..good()
        };
        memory(&facts).expect("it has a limit").grade
    };
    assert_eq!(grade(899), Grade::Ok);
    assert_eq!(grade(900), Grade::Warn);
    assert_eq!(grade(1_000), Grade::Fail);
    assert_eq!(memory(&good()), None);
}

#[test]
fn a_redis_as_it_should_be_is_ok_in_everything() {
    for durability in [Durability::Memory, REPLICATED] {
        let findings = judge(&good(), durability);
        assert!(findings.len() >= 7);
        let ok = |it: &Finding| it.grade == Grade::Ok && it.mend.is_none();
        assert!(findings.iter().all(ok), "{findings:?}");
    }
    assert_eq!(refused(&good(), true), None);
}

type Change = fn(&mut Facts);

/// What is wrong, in which check it is found, and a part of the line that mends it.
const FAILS: &[(Change, &str, &str)] = &[
    (|f| f.version = text("6.2.6"), "version", "7.0"),
    (|f| f.role = text("slave"), "role", "REDIS_URL"),
];
const WARNS: &[(Change, &str, &str)] = &[
    (
        |f| f.append_only = Some(false),
        "append-only",
        "appendonly yes",
    ),
    (
        |f| f.append_fsync = text("everysec"),
        "append-fsync",
        "appendfsync always",
    ),
    (
        |f| f.append_fsync = text("no"),
        "append-fsync",
        "appendfsync always",
    ),
    (|f| f.clock_bounds_ms = Some((1_001, 1_500)), "clock", "NTP"),
    (
        |f| f.clock_bounds_ms = Some((-9_000, -1_001)),
        "clock",
        "NTP",
    ),
];
const WARNS_REPLICATED: &[(Change, &str, &str)] = &[
    (
        |f| f.connected_replicas = Some(1),
        "replicas",
        "WAIT_REPLICAS",
    ),
    (
        |f| f.min_replicas_to_write = Some(1),
        "min-replicas",
        "min-replicas-to-write 2",
    ),
];
const INFOS: &[(Change, &str, &str)] = &[(
    |f| f.notify = text("Elg"),
    "events",
    "notify-keyspace-events ElgKx",
)];
const INFOS_REPLICATED: &[(Change, &str, &str)] = &[(
    |f| f.append_fsync = text("everysec"),
    "append-fsync",
    "appendfsync always",
)];

#[test]
fn each_thing_that_is_wrong_is_found_with_the_line_that_mends_it() {
    for (durability, grade, cases) in [
        (Durability::Memory, Grade::Fail, FAILS),
        (Durability::Memory, Grade::Warn, WARNS),
        (Durability::Memory, Grade::Info, INFOS),
        (REPLICATED, Grade::Warn, WARNS_REPLICATED),
        (REPLICATED, Grade::Info, INFOS_REPLICATED),
    ] {
        for (change, check, mend) in cases {
            let finding = only(durability, change);
            assert_eq!((finding.check, finding.grade), (*check, grade));
            assert!(finding.to_string().contains(mend), "{finding}");
        }
    }
}

#[test]
fn eviction_is_judged_by_what_it_throws_away() {
    let evicts = |policy: &'static str| {
        move |facts: &mut Facts| {
            facts.maxmemory = Some(1_000_000);
            facts.maxmemory_policy = text(policy);
        }
    };
    let all = only(Durability::Memory, evicts("allkeys-lru"));
    assert_eq!((all.check, all.grade), ("eviction", Grade::Fail));
    assert!(all.to_string().contains("noeviction"));
    let some = only(Durability::Memory, evicts("volatile-lru"));
    assert_eq!((some.check, some.grade), ("eviction", Grade::Warn));
    // Nothing is evicted without a limit.
    let no_limit = |facts: &mut Facts| facts.maxmemory_policy = text("allkeys-lru");
    assert!(!is_refused(no_limit));
    assert!(is_refused(evicts("allkeys-random")) && is_refused(|f| f.version = text("6.0.16")));
    assert!(!is_refused(evicts("volatile-ttl")) && !is_refused(|f| f.role = text("slave")));
}

#[test]
fn what_is_not_told_is_said_and_nothing_else() {
    for durability in [Durability::Memory, REPLICATED] {
        let findings = judge(&Facts::default(), durability);
        let said = |it: &Finding| it.grade == Grade::Info && it.mend.is_none();
        assert!(findings.iter().all(said), "{findings:?}");
    }
    assert_eq!(refused(&Facts::default(), true), None);
    // Where CONFIG is forbidden, INFO still tells this.
    let told = only(Durability::Memory, |facts| facts.append_fsync = None);
    assert_eq!((told.check, told.grade), ("append-fsync", Grade::Info));
}

#[test]
fn a_replicas_clock_is_held_against_the_primarys() {
    let clock = |bounds_ms| {
        move |facts: &mut Facts| {
            let name = "10.0.0.2:6379".to_owned();
            facts.replica_clocks = vec![ReplicaClock { name, bounds_ms }];
        }
    };
    let ahead = only(Durability::Memory, clock(Some((29_990, 30_010))));
    assert_eq!((ahead.check, ahead.grade), ("replica-clock", Grade::Warn));
    assert!(ahead.found.contains("29990 ms") && ahead.found.contains("10.0.0.2:6379"));
    // A slow answer proves nothing.
    let mut slow = good();
    clock(Some((-500, 4_000)))(&mut slow);
    assert!(
        judge(&slow, Durability::Memory)
            .iter()
            .all(|it| it.grade == Grade::Ok)
    );
    let silent = only(Durability::Memory, clock(None));
    assert_eq!(silent.grade, Grade::Info);
}

#[test]
fn a_service_that_runs_is_not_stopped_by_what_it_would_not_start_on() {
    let mut facts = good();
    facts.maxmemory = Some(1_000_000);
    facts.maxmemory_policy = text("allkeys-lru");
    assert!(refused(&facts, true).is_some() && refused(&facts, false).is_none());
    facts.version = text("6.2.6");
    assert!(refused(&facts, false).is_some());
}

#[test]
fn the_log_is_told_once_of_each_thing_on_each_server() {
    let told = Told::default();
    let warn = only(Durability::Memory, |facts| facts.append_only = Some(false));
    assert!(told.is_new("a:6379", &warn));
    assert!(!told.is_new("a:6379", &warn));
    assert!(told.is_new("b:6379", &warn));
    let mut worse = warn.clone();
    worse.grade = Grade::Fail;
    assert!(told.is_new("a:6379", &worse));
}

#[test]
fn a_data_set_of_another_number_of_partitions_fails() {
    assert_eq!(layout((None, None), 16, &[]).grade, Grade::Info);
    assert_eq!(layout((Some(16), None), 16, &["{p0}"]).grade, Grade::Ok);
    let other = layout((Some(8), None), 16, &[]);
    assert_eq!(other.grade, Grade::Fail);
    assert!(other.to_string().contains("PARTITIONS=8"), "{other}");
}

#[test]
fn a_data_set_that_has_moved_on_fails() {
    let moved = layout((Some(16), Some(2)), 16, &["{p0}"]);
    assert_eq!(moved.grade, Grade::Fail);
    assert!(moved.to_string().contains("key schema 2"), "{moved}");
}

#[test]
fn a_cluster_is_asked_as_one_covers_its_slots_and_goes_on_where_it_can() {
    let alone = good();
    assert_eq!(cluster(&alone, false, 0), None);
    let of_cluster = |coverage: &str| Facts {
        clustered: true,
        full_coverage: Some(coverage.to_owned()),
        ..good()
    };
    let grade = |coverage, as_one, uncovered| {
        cluster(&of_cluster(coverage), as_one, uncovered).map(|it| it.grade)
    };
    assert_eq!(grade("no", true, 0), Some(Grade::Ok));
    assert_eq!(grade("yes", true, 0), Some(Grade::Warn));
    assert_eq!(grade("no", true, 1), Some(Grade::Fail));
    assert_eq!(grade("no", false, 0), Some(Grade::Fail));
}

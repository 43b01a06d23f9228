//! `compose.yaml` and the files that it mounts tell one story: addresses, names, times.

use serde_json::Value;

use crate::machine::repository;

const REPLICAS: [&str; 3] = ["tokend-1", "tokend-2", "tokend-3"];

fn text(path: &str) -> String {
    let text = std::fs::read_to_string(repository(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind a directive of nginx, without its unit.
fn directive<'a>(configuration: &'a str, name: &str) -> &'a str {
    let lines = configuration.lines().map(str::trim);
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_suffix(';'));
    values.next().expect(name).trim()
}

fn seconds(text: &str) -> f64 {
    let text = text.trim_end_matches('s');
    text.parse().unwrap_or_else(|_| panic!("{text} seconds"))
}

#[test]
fn nginx_and_prometheus_know_the_replicas_by_the_addresses_that_they_have() {
    let services = &yaml("compose.yaml")["services"];
    let nginx = text("deploy/compose/nginx.conf");
    let prometheus = text("deploy/compose/prometheus.yml");
    for replica in REPLICAS {
        let address = &services[replica]["networks"]["tokend"]["ipv4_address"];
        let address = address.as_str().expect("an address of its own");
        assert!(
            nginx.contains(&format!("server {address}:3000 ")),
            "{replica}"
        );
        assert!(
            prometheus.contains(&format!("\"{replica}:3000\"")),
            "{replica}"
        );
        let waits = &services["nginx"]["depends_on"][replica]["condition"];
        assert_eq!(waits, "service_healthy", "{replica}");
    }
    assert_eq!(nginx.matches("server 172.").count(), REPLICAS.len());
    let settings = &services[REPLICAS[0]]["environment"];
    let proxy = &services["nginx"]["networks"]["tokend"]["ipv4_address"];
    assert_eq!(&settings["TRUSTED_PROXIES"], proxy);
    let restart = text("deploy/compose/rolling-restart.sh");
    assert!(restart.contains(&REPLICAS.join(" ")), "{restart}");
}

#[test]
fn nginx_lets_go_of_a_connection_before_the_replica_closes_it() {
    let services = &yaml("compose.yaml")["services"];
    let nginx = text("deploy/compose/nginx.conf");
    let delay = services[REPLICAS[0]]["environment"]["SHUTDOWN_DELAY"].as_str();
    let delay = seconds(delay.expect("a text"));
    assert!(seconds(directive(&nginx, "keepalive_timeout")) < delay);
    // A stop takes 9.5 s at the most (src/serve.rs), and an assign waits for 60.
    let grace = services[REPLICAS[0]]["stop_grace_period"].as_str();
    assert!(seconds(grace.expect("a text")) > 9.5);
    let (all, assign) = nginx.split_once("location ~ /assign$").expect("a location");
    assert!(seconds(directive(assign, "proxy_read_timeout")) > 60.0);
    // All else is answered within 2 s: a replica that is frozen holds nobody for a minute.
    let rest = seconds(directive(all, "proxy_read_timeout"));
    assert!((5.0..=15.0).contains(&rest), "{rest}");
    let retried = directive(&nginx, "proxy_next_upstream ");
    assert_eq!(retried, "error timeout", "no POST is ever sent twice");
}

#[test]
fn every_image_is_pinned_every_container_confined_and_every_file_there() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        let image = service["image"].as_str().expect("an image");
        let (_, tag) = image.rsplit_once(':').expect("a version");
        assert!(tag != "latest" && !tag.is_empty(), "{name}: {image}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().expect("a text");
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name} is open to all: {port}"
            );
        }
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let mount = mount.as_str().expect("a text");
            let (from, _) = mount.split_once(':').expect("from and to");
            if from.starts_with("./") {
                assert!(repository(from).exists(), "{name}: {from}");
                assert!(mount.ends_with(":ro"), "{name}: {mount}");
            } else {
                assert!(compose["volumes"].get(from).is_some(), "{name}: {from}");
            }
        }
    }
}

#[test]
fn what_compose_asks_for_is_in_the_example_of_its_environment() {
    let example = text("deploy/compose/env.example");
    let compose = text("compose.yaml");
    let code = compose
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let code: Vec<_> = code.collect();
    for asked in code.join("\n").split("${").skip(1) {
        let end = asked.find([':', '}']).expect("an end");
        let name = &asked[..end];
        let given = example
            .lines()
            .any(|line| line.starts_with(&format!("{name}=")));
        assert!(
            given || name == "TOKEND_VERSION",
            "{name} is not in env.example"
        );
    }
}

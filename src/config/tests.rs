use std::os::unix::ffi::OsStringExt;

use super::*;

/// A directory of this test's own, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn with_dotenv(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tokend-config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).expect("a fresh directory");
        std::fs::write(path.join(".env"), text).expect("a writable directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn real(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    list.iter().map(|(n, v)| (n.into(), v.into())).collect()
}

fn vars(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn mistakes(list: &[(&str, &str)]) -> Vec<String> {
    let ConfigError(mistakes) = Config::from_vars(vars(list)).expect_err("a mistake");
    mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let config = Config::from_vars(BTreeMap::new()).expect("defaults are valid");
    assert_eq!(config.redis_url, None);
    assert_eq!(config.default_policy, Policy::FOR_DEFAULT_POOL);
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 3000));
    assert_eq!(config.data_dir, PathBuf::from("./data"));
    assert_eq!(
        (config.partitions, config.key_prefix.as_str()),
        (16, "tokend")
    );
    assert_eq!(config.shutdown_delay, Duration::from_secs(1));
    assert!(config.workers >= 1);
}

#[test]
fn a_dotenv_file_with_comments_behind_its_values_is_read_as_it_stands() {
    let scratch = Scratch::with_dotenv(
        "REDIS_URL=redis://localhost:6379   # where redis lives\n\
         TOKEN_LIFETIME=60  # seconds\n\
         KEEP_ALIVE_LIMIT=300  # it's in seconds, too\n\
         MAX_TOKENS=50\n\
         LOG_LEVEL=INFO     # DEBUG, INFO, WARNING, ERROR\n",
    );
    let config = Config::read(std::iter::empty(), &scratch.0).expect("a valid file");
    assert_eq!(
        config.redis_url.expect("given").expose(),
        "redis://localhost:6379"
    );
    assert_eq!(config.default_policy.lifetime_ms, 60_000);
    assert_eq!(config.default_policy.idle_limit_ms, 300_000);
    assert_eq!(config.default_policy.max_tokens, 50);
    assert_eq!(config.log_filter, LogFilter::default());
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_real_environment_wins_over_dotenv_even_where_it_is_empty() {
    let scratch = Scratch::with_dotenv("REDIS_URL=redis://other\nPORT=1\nTOKEN_LIFTIME=3\nA=1\n");
    let real = real(&[
        ("REDIS_URL", ""),
        ("PORT", "4000"),
        ("port", "5"),
        ("X", "y"),
    ]);
    let config = Config::read(real.into_iter(), &scratch.0).expect("valid");
    assert_eq!(config.redis_url, None);
    assert_eq!(config.port, 4000);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("TOKEN_LIFETIME"));
}

#[test]
fn mistakes_in_the_file_and_in_the_environment_are_told_together() {
    let scratch = Scratch::with_dotenv("PORT=1\nPORT 2\n");
    let mut given = real(&[("WORKERS", "many")]);
    given.push(("HOST".into(), OsString::from_vec(vec![0xff])));
    let error = Config::read(given.into_iter(), &scratch.0).expect_err("three mistakes");
    let text = error.to_string();
    for part in [
        ".env, line 2",
        "WORKERS must be a whole number from 1",
        "HOST must be UTF-8",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(error.0.len(), 3);
}

#[test]
fn every_variable_is_judged_under_its_own_name() {
    // The settings of traces are judged where these are on.
    let traced = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    for name in variable_names() {
        let found = mistakes(&[traced, (&name, "{ \0 }")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&name), "{found:?}");
        assert!(found[0].contains(" must be "), "{found:?}");
    }
}

#[test]
fn durations_take_fractions_and_keep_to_the_policys_ranges() {
    let given = [
        ("TOKEN_LIFETIME", "1.5"),
        ("KEEP_ALIVE_LIMIT", "0"),
        ("TOKEN_UNBLOCK_LIFETIME", "2592000"),
    ];
    let policy = Config::from_vars(vars(&given))
        .expect("valid")
        .default_policy;
    assert_eq!((policy.lifetime_ms, policy.idle_limit_ms), (1_500, 0));
    for name in [
        "TOKEN_LIFETIME",
        "KEEP_ALIVE_LIMIT",
        "TOKEN_UNBLOCK_LIFETIME",
    ] {
        for wrong in [
            "-5", "0.0001", "0.5", "2592001", "60s", "NaN", "inf", "1e300", "sixty",
        ] {
            let found = mistakes(&[(name, wrong)]);
            assert!(found[0].contains("seconds"), "{found:?}");
        }
    }
    assert_eq!(
        mistakes(&[("TOKEN_LIFETIME", "0")]),
        ["TOKEN_LIFETIME must be 1 to 2592000 seconds (30 days)"]
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (name, wrong) in [
        ("MAX_TOKENS", "0"),
        ("MAX_TOKENS", "1e3"),
        ("MAX_TOKENS", "100000001"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PARTITIONS", "0"),
        ("PARTITIONS", "1025"),
        ("WORKERS", "0"),
        ("SHUTDOWN_DELAY", "5.1"),
        ("SHUTDOWN_DELAY", "-0.1"),
        ("KEY_PREFIX", "a{b}"),
        ("WAIT_REPLICAS", "0"),
        ("WAIT_REPLICAS", "11"),
        ("WAIT_TIMEOUT_MS", "0"),
        ("WAIT_TIMEOUT_MS", "801"),
        ("DURABILITY", "disk"),
    ] {
        assert_eq!(mistakes(&[(name, wrong)]).len(), 1, "{name}={wrong}");
    }
}

#[test]
fn replicas_are_waited_for_only_where_writes_are_replicated() {
    let durability =
        |list: &[(&str, &str)]| Config::from_vars(vars(list)).expect("valid").durability;
    let wait = [("WAIT_REPLICAS", "2"), ("WAIT_TIMEOUT_MS", "800")];
    assert_eq!(durability(&wait), Durability::Memory);
    let replicated = |replicas, timeout_ms| Durability::Replicated {
        replicas,
        timeout_ms,
    };
    assert_eq!(
        durability(&[("DURABILITY", "replicated")]),
        replicated(1, 500)
    );
    let all = [wait[0], wait[1], ("DURABILITY", "replicated")];
    assert_eq!(durability(&all), replicated(2, 800));
}

#[test]
fn a_secret_shows_up_neither_in_a_mistake_nor_in_debug_output() {
    let found = mistakes(&[("REDIS_URL", "https://:hush@db"), ("PORT", "x")]);
    assert_eq!(found.len(), 2);
    assert!(!found.concat().contains("hush"), "{found:?}");
    let config = Config::from_vars(vars(&[("REDIS_URL", "redis://:hush@db")])).expect("valid");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn a_value_that_may_be_a_secret_or_a_url_is_not_repeated() {
    let traced = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    for (name, value) in [
        ("REDIS_URL", "https://:hush@db"),
        ("SECRET_KEY", "hush"),
        ("JWT_PRIVATE_KEY_FILE", "-----BEGIN PRIVATE KEY-----hush"),
        ("JWT_PRIVATE_KEY_FILE", "a,hu\nsh"),
        ("SECRET_KEY_FILE", "hush"),
        ("REDIS_URL_FILE", "redis://:hush@db"),
        ("PUBLIC_URL", "https://u:hush@a/"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,hush"),
        ("CORS_ORIGINS", "https://u:hush@a"),
        ("HOST", "http://u:hush@a"),
        ("DATA_DIR", "redis://:hush@db"),
        ("KEY_PREFIX", "redis://:hush@db"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:hush@a"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
        ("OTEL_RESOURCE_ATTRIBUTES", "hush"),
        ("PORT", "hush-hush-hush-hush-hush"),
        ("LOG_LEVEL", "hush-hush-hush-hush-hush"),
    ] {
        let found = mistakes(&[traced, (name, value)]);
        assert_eq!(found.len(), 1, "{name}");
        assert!(
            found[0].starts_with(name) && !found[0].contains("hush"),
            "{found:?}"
        );
    }
    let item = mistakes(&[("TRUSTED_PROXIES", "10.0.0.0/8,hush")]);
    assert!(item[0].contains("item 2"), "{item:?}");
    assert_eq!(
        mistakes(&[("PORT", "http")]),
        ["PORT must be a whole number from 0 to 65535"]
    );
}

#[test]
fn quotes_that_are_a_part_of_a_value_are_refused() {
    let long = "x".repeat(40);
    for (name, value) in [
        ("SECRET_KEY", format!("'{long}'")),
        ("SECRET_KEY", format!("\"{long}\",\"{long}\"")),
        ("REDIS_URL", "\"redis://:hush@db\"".to_owned()),
        ("DATA_DIR", "'/data'".to_owned()),
        ("PORT", "\"3000\"".to_owned()),
    ] {
        let found = mistakes(&[(name, &value)]);
        assert!(found[0].contains("docker run --env-file"), "{found:?}");
        assert!(
            !found[0].contains("hush") && !found[0].contains(&long),
            "{found:?}"
        );
    }
    let fine = [
        ("SECRET_KEY", format!("{long},\"{long}\"")),
        ("APP_TITLE", "'a'".to_owned()),
    ];
    assert!(Config::from_vars(fine.map(|(n, v)| (n.to_owned(), v)).into()).is_ok());
}

#[test]
fn the_content_of_a_file_is_the_value_of_a_secret() {
    let scratch = Scratch::with_dotenv("");
    let file = |name: &str, text: &str| {
        let path = scratch.0.join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path.to_str().expect("UTF-8").to_owned()
    };
    let secret = "x".repeat(40);
    let (url, key) = (
        file("url", "redis://:hush@db:6379\n"),
        file("key", &format!("{secret}\r\n")),
    );
    let headers = file("headers", "authorization=Bearer%20hush\n");
    let config = Config::from_vars(vars(&[
        ("REDIS_URL_FILE", &url),
        ("SECRET_KEY_FILE", &key),
        ("REFRESH_TOKEN_SECRET_FILE", &key),
        ("JWT_SECRET_FILE", &key),
        ("JWT_SECRET", ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=other"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS_FILE", &headers),
    ]));
    let config = config.expect("valid");
    assert_eq!(
        config.redis_url.expect("given").expose(),
        "redis://:hush@db:6379"
    );
    let flows = config.flows;
    for secrets in [
        flows.one_time_secrets,
        flows.refresh_secrets,
        flows.jwt_secrets,
    ] {
        assert_eq!(secrets, Secrets(vec![secret.clone().into_bytes()]));
    }
    let headers = config.traces.expect("on").exporting.headers;
    assert_eq!(headers.expose()["authorization"], "Bearer hush");

    let both = mistakes(&[("REDIS_URL", "redis://db"), ("REDIS_URL_FILE", &url)]);
    assert_eq!(
        both,
        ["REDIS_URL and REDIS_URL_FILE are both set: remove one of them"]
    );
    for (text, why) in [
        ("", "empty"),
        ("a\nhush", "more than one line"),
        ("hush", "32 bytes"),
    ] {
        let found = mistakes(&[("SECRET_KEY_FILE", &file("bad", text))]);
        assert!(
            found[0].starts_with("SECRET_KEY_FILE") && found[0].contains(why),
            "{found:?}"
        );
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}

#[test]
fn a_misspelt_redis_url_starts_nothing_wherever_it_stands() {
    for (name, right) in [
        ("REDIS_URI", "REDIS_URL"),
        ("SECRET_KEY_FIEL", "SECRET_KEY_FILE"),
    ] {
        let scratch = Scratch::with_dotenv(&format!("{name}=hush\n"));
        let in_file = Config::read(std::iter::empty(), &scratch.0);
        let nothing = Scratch::with_dotenv("REDIS_URL=\n");
        let outside = Config::read(real(&[(name, "hush")]).into_iter(), &nothing.0);
        for error in [
            in_file.expect_err("a mistake"),
            outside.expect_err("a mistake"),
        ] {
            let told = error.to_string();
            assert!(
                told.contains(name) && told.contains(right) && !told.contains("hush"),
                "{told}"
            );
        }
    }
}

#[test]
fn a_dotenv_file_of_many_programs_is_no_hindrance() {
    let scratch = Scratch::with_dotenv(
        "POSTGRES_PASSWORD='it's'\nGREETING=hello dear world\nDEBUG\nTAG=${TAG:-latest}\n\
         REDIS_PASSWORD=hush\nREDIS_URL=redis://:${REDIS_PASSWORD}@db:6379 # ours\n\
         APP_TITLE=Our tokens\nPORT=${TOKENS_PORT:-4000}\n",
    );
    let links = real(&[
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("TOKEND_PORT", "tcp://10.0.0.2:3000"),
    ]);
    let config = Config::read(links.into_iter(), &scratch.0).expect("valid");
    assert_eq!(
        config.redis_url.expect("given").expose(),
        "redis://:hush@db:6379"
    );
    assert_eq!(
        (config.port, config.flows.title.as_str()),
        (4_000, "Our tokens")
    );
    assert_eq!(config.warnings.len(), 1, "line 1: {:?}", config.warnings);
}

#[test]
fn a_host_may_be_an_address_in_brackets() {
    let config = Config::from_vars(vars(&[("HOST", "[::1]")])).expect("valid");
    assert_eq!(config.host, "::1");
}

/// What `.env.example` documents: every line `NAME=value` or `# NAME=value`.
fn documented() -> BTreeMap<String, String> {
    include_str!("../../.env.example")
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .map(|(name, value)| {
            (
                name.to_owned(),
                value.split(" #").next().unwrap_or("").trim().to_owned(),
            )
        })
        .collect()
}

#[test]
fn env_example_documents_every_variable_and_no_other() {
    let names: std::collections::BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(names, variable_names());
}

#[test]
fn env_example_shows_the_defaults() {
    let shown = Config::from_vars(documented()).expect("a valid example");
    let mut defaults = Config::from_vars(BTreeMap::new()).expect("defaults are valid");
    // The default is the number of cores, which an example can't show.
    defaults.workers = shown.workers;
    assert_eq!(format!("{shown:?}"), format!("{defaults:?}"));
}

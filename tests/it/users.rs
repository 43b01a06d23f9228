//! Users and failed logins through the store, and `tokend user` against a real Redis and an embedded one.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use futures_util::future::join_all;
use tokend::auth::attempts::{Limit, LoginAttempt};
use tokend::auth::password::{Passwords, Verdict, bcrypt_cost};
use tokend::auth::user::UserName;
use tokend::store::Store;

use crate::harness::*;
use crate::process::{Directory, Ran, Tokend, tokend};

fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a name")
}

fn who(user: &str) -> LoginAttempt {
    LoginAttempt::new(user, here().into())
}

fn here() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

#[tokio::test]
async fn a_user_is_found_as_it_was_set_until_it_is_deleted() {
    let f = Fixture::new().await;
    let (store, ann) = (&f.store, name("Jörg \"M\""));
    assert_eq!(store.find_user(&ann).await, Ok(None));
    assert_eq!(store.set_password(&ann, "1").await, Ok(false));
    assert_eq!(store.add_user(&ann, "1").await, Ok(true));
    assert_eq!(store.add_user(&ann, "2").await, Ok(false));
    let first = store.find_user(&ann).await.expect("Redis").expect("there");
    assert_eq!((&first.name, first.password_hash.as_str()), (&ann, "1"));
    assert_eq!(store.rehash_user(&first, "2").await, Ok(true));
    assert_eq!(
        store.rehash_user(&first, "3").await,
        Ok(false),
        "read before"
    );
    let rehashed = store.find_user(&ann).await.expect("Redis").expect("there");
    assert_eq!(
        (rehashed.epoch, rehashed.password_hash.as_str()),
        (first.epoch, "2")
    );
    assert_eq!(store.set_password(&ann, "4").await, Ok(true));
    let second = store.find_user(&ann).await.expect("Redis").expect("there");
    assert!(second.epoch > first.epoch);
    let listed = store.list_users().await.expect("Redis");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].name, listed[0].changed_at_ms),
        (&ann, second.epoch / 1_000)
    );
    assert_eq!(store.delete_user(&ann).await, Ok(true));
    assert_eq!(store.delete_user(&ann).await, Ok(false));
    assert_eq!(store.find_user(&ann).await, Ok(None));
    assert_eq!(store.list_users().await, Ok(Vec::new()));
    f.assert_consistent().await;
}

#[tokio::test]
async fn of_a_hundred_wrong_logins_at_once_ten_are_told_so() {
    let f = Fixture::new().await;
    let ann = who("ann");
    let logins = (0..100).map(async |_| f.store.login_failed(&ann).await.expect("Redis"));
    let told = join_all(logins).await;
    let within = told.iter().filter(|told| told.refused.is_none());
    assert_eq!(within.count(), 10);
    for told in [
        f.store.login_attempts(&ann).await.expect("Redis"),
        f.store.login_passed(&ann, false).await.expect("Redis"),
        f.store.login_attempts(&ann).await.expect("Redis"),
    ] {
        let refused = told.refused.expect("over the limit");
        assert_eq!((refused.limit, told.known), (Limit::Pair, false));
    }
    let bob = f.store.login_attempts(&who("bob")).await.expect("Redis");
    assert_eq!(bob.refused, None);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_login_that_passes_starts_the_count_anew_and_makes_the_address_known() {
    let f = Fixture::new().await;
    let ann = who("ann");
    for _ in 0..9 {
        f.store.login_failed(&ann).await.expect("Redis");
    }
    let passed = f.store.login_passed(&ann, false).await.expect("Redis");
    assert_eq!(passed.refused, None);
    for _ in 0..9 {
        let failed = f.store.login_failed(&ann).await.expect("Redis");
        assert_eq!((failed.known, failed.refused), (true, None));
    }
}

#[tokio::test]
async fn an_address_that_failed_for_many_users_is_limited_but_not_for_those_who_are_known_there() {
    let f = Fixture::new().await;
    let ann = who("ann");
    f.store.login_passed(&ann, false).await.expect("Redis");
    let strangers = (0..60).map(|i| who(&format!("made up {i}")));
    let logins = strangers.map(async |who| f.store.login_failed(&who).await.expect("Redis"));
    let told = join_all(logins).await;
    let counted = told.iter().filter(|told| told.refused.is_none()).count();
    assert_eq!(counted, 50);
    let bob = who("bob");
    for told in [
        f.store.login_attempts(&bob).await.expect("Redis"),
        f.store.login_passed(&bob, false).await.expect("Redis"),
        f.store.login_attempts(&bob).await.expect("Redis"),
    ] {
        assert_eq!(told.refused.expect("limited").limit, Limit::Address);
    }
    let ann = f.store.login_attempts(&ann).await.expect("Redis");
    assert_eq!((ann.known, ann.refused), (true, None));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_store_for_users_makes_no_pool() {
    let f = Fixture::new().await;
    let mut config = f.config.clone();
    config.key_prefix = new_namespace();
    let store = Store::for_users(config.clone()).await.expect("connected");
    assert_eq!(store.add_user(&name("ann"), "1").await, Ok(true));
    store.stop().await;
    let keys = f.keys(&format!("{}:*", config.key_prefix)).await;
    assert_eq!(keys, [format!("{}:1:users", config.key_prefix)]);
}

/// Where `tokend user` works, and a way to look at what it did.
struct Site {
    directory: Directory,
    settings: Vec<(&'static str, String)>,
}

impl Site {
    async fn new() -> Self {
        let settings = vec![
            ("REDIS_URL", redis_url().await.to_owned()),
            ("KEY_PREFIX", new_namespace()),
        ];
        let directory = Directory::new();
        Self {
            directory,
            settings,
        }
    }

    /// Runs `tokend user` with this on stdin.
    fn user(&self, args: &[&str], input: &str) -> Ran {
        let mut command = tokend(&self.directory);
        command.arg("user").args(args);
        command.envs(self.settings.iter().cloned());
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tokend runs");
        let mut stdin = child.stdin.take().expect("piped");
        // One that reads nothing may have ended already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ran::from(child.wait_with_output().expect("it ends"))
    }

    fn refused(&self, args: &[&str], input: &str, code: i32, why: &str) {
        let ran = self.user(args, input);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(why) && ran.stdout.is_empty(), "{ran:?}");
    }

    async fn hash_of(&self, user: &str) -> Option<String> {
        let mut config = Fixture::new().await.config;
        config.key_prefix = self.settings[1].1.clone();
        let store = Store::for_users(config).await.expect("connected");
        let found = store.find_user(&name(user)).await.expect("Redis");
        store.stop().await;
        found.map(|user| user.password_hash)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_added_changed_listed_and_deleted() {
    let site = Site::new().await;
    assert_eq!(site.user(&["list"], "").ok(), "");
    assert_eq!(
        site.user(&["add", "bob"], "correct horse\n").ok(),
        "added bob\n"
    );
    site.refused(&["add", "bob"], "correct horse\n", 1, "exists");
    site.refused(&["passwd", "ann"], "correct horse\n", 1, "no user ann");
    site.refused(&["delete", "ann"], "", 1, "no user ann");
    site.refused(&["add", "ann"], "", 2, "no password");
    site.refused(&["add", "ann"], "1234567\n", 2, "8 characters");
    site.refused(&["add", "a:b"], "correct horse\n", 2, "colon");
    assert_eq!(
        site.user(&["add", "ann", "--json"], "battery staple")
            .json()["name"],
        "ann"
    );
    assert_eq!(site.user(&["list"], "").ok(), "ann\nbob\n");
    let listed = site.user(&["list", "--json"], "").json();
    assert_eq!(listed["users"][1]["name"], "bob");
    assert!(
        listed["users"][1]["changed_at"]
            .as_str()
            .expect("a time")
            .ends_with('Z')
    );

    let first = site.hash_of("bob").await.expect("there");
    assert_eq!(
        site.user(&["passwd", "bob"], "another horse\r\n").ok(),
        "changed bob\n"
    );
    let second = site.hash_of("bob").await.expect("there");
    assert_ne!(first, second);
    let passwords = Passwords::new(2);
    let verdict = passwords.verify(here().into(), "another horse".to_owned(), Some(second));
    assert_eq!(verdict.await, Ok(Verdict::Right { rehash: None }));
    assert_eq!(site.user(&["delete", "bob"], "").ok(), "deleted bob\n");
    assert_eq!(site.hash_of("bob").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn htpasswd_files_are_imported_whole_or_not_at_all() {
    // Made by crypt(3): the password is rasmuslerdorf.
    const BCRYPT: &str = "$2y$07$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTpOq";
    let site = Site::new().await;
    let good = format!("ann:{BCRYPT}\nbob:{BCRYPT}\n");
    site.directory.write("good", &good);
    site.directory
        .write("bad", &format!("{good}cyd:$apr1$a$b\ndot:plain\n"));
    site.directory
        .write("more", &format!("bob:{BCRYPT}\neve:{BCRYPT}\n"));
    site.refused(&["import", "bad"], "", 2, "line 4: dot: plain");
    site.refused(&["import", "bad"], "", 2, "line 3: cyd: an MD5");
    site.refused(&["import", "nowhere"], "", 2, "cannot read nowhere");
    assert_eq!(site.user(&["list"], "").ok(), "");
    assert_eq!(
        site.user(&["import", "good"], "").ok(),
        "imported 2 users\n"
    );
    site.refused(&["import", "more"], "", 1, "exist: bob");
    assert_eq!(site.user(&["list"], "").ok(), "ann\nbob\n");
    let replaced = site.user(&["import", "more", "--replace", "--json"], "");
    assert_eq!(replaced.json()["imported"], 2);
    assert_eq!(site.user(&["list"], "").ok(), "ann\nbob\neve\n");
    let hash = site.hash_of("eve").await.expect("there");
    assert_eq!(bcrypt_cost(&hash), Some(7));
    let passwords = Passwords::new(2);
    let verdict = passwords.verify(here().into(), "rasmuslerdorf".to_owned(), Some(hash));
    let right = Verdict::Right { rehash: None };
    assert!(
        verdict
            .await
            .is_ok_and(|it| it != Verdict::Wrong && it != right)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_stored_in_one_form_and_older_ones_are_reached_as_they_are() {
    const BCRYPT: &str = "$2y$07$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTpOq";
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let site = Site::new().await;
    let added = site.user(&["add", decomposed], "correct horse\n");
    assert_eq!(added.ok(), format!("added {composed}\n"));
    for spelling in [composed, decomposed] {
        site.refused(&["add", spelling], "correct horse\n", 1, "exists");
    }
    site.refused(&["add", "ann\u{200b}"], "correct horse\n", 2, "U+200B");
    site.refused(&["add", "\u{feff}ann"], "correct horse\n", 2, "U+FEFF");
    let changed = site.user(&["passwd", decomposed], "another horse\n");
    assert_eq!(changed.ok(), format!("changed {composed}\n"));
    site.directory.write(
        "twice",
        &format!("{composed}x:{BCRYPT}\n{decomposed}x:{BCRYPT}\n"),
    );
    site.refused(&["import", "twice"], "", 2, "is in line 1 already");

    // Stored before there was a form.
    let mut config = Fixture::new().await.config;
    config.key_prefix = site.settings[1].1.clone();
    let store = Store::for_users(config).await.expect("connected");
    for older in ["o\u{308}", "zero\u{200b}"] {
        assert_eq!(store.add_user(&name(older), "1").await, Ok(true));
    }
    store.stop().await;
    site.refused(&["add", "\u{f6}"], "correct horse\n", 1, "spelt o\\u{308}");
    site.directory.write("same", &format!("\u{f6}:{BCRYPT}\n"));
    for import in [&["import", "same"][..], &["import", "same", "--replace"]] {
        site.refused(import, "", 1, "spelt o\\u{308}");
    }
    site.refused(&["delete", "zero"], "", 1, "no user zero");
    for older in ["o\u{308}", "zero\u{200b}"] {
        let changed = site.user(&["passwd", older], "another horse\n");
        assert_eq!(changed.ok(), format!("changed {older}\n"));
        site.user(&["delete", older], "").ok();
    }
    assert_eq!(site.user(&["list"], "").ok(), format!("{composed}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_told_and_never_its_password() {
    let mut site = Site::new().await;
    let port = free_port();
    site.settings[0].1 = format!("redis://user:hunter2@127.0.0.1:{port}");
    site.refused(&["list"], "", 69, "Redis");
    assert!(!site.user(&["list"], "").stderr.contains("hunter2"));
    site.settings[0].1 = "nonsense".to_owned();
    site.refused(&["list"], "", 2, "REDIS_URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_url_the_embedded_one_of_a_running_tokend_is_used() {
    let embedded = ["redis-server", "valkey-server"].iter().any(|name| {
        let version = std::process::Command::new(name).arg("--version").output();
        version.is_ok()
    });
    if !embedded {
        skip(
            "without_redis_url_the_embedded_one_of_a_running_tokend_is_used",
            "no redis-server",
        );
        return;
    }
    // A path that fits into a socket's name, and one that does not.
    for data_dir in ["data", "dätä"] {
        let settings = vec![("DATA_DIR", data_dir.to_owned())];
        let directory = Directory::new();
        let site = Site {
            directory,
            settings,
        };
        site.refused(&["list"], "", 69, "no tokend is running on DATA_DIR");
        let settings = [("DATA_DIR", data_dir), ("SHUTDOWN_DELAY", "0")];
        let mut service = Tokend::start(&site.directory, &settings).await;
        site.user(&["add", "ann"], "correct horse\n").ok();
        assert_eq!(site.user(&["list"], "").ok(), "ann\n");
        service.process.stop("TERM").await;
        site.refused(&["list"], "", 69, "no tokend is running on DATA_DIR");
    }
}

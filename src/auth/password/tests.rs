//! Of `password.rs`.

use super::*;

fn verify(password: &str, hash: Option<&str>) -> Verdict {
    Memories::default().with(|memory| super::verify(password, hash, memory))
}

/// Cheap, for tests.
fn weak(password: &str, algorithm: Algorithm) -> String {
    let params = Params::new(64, 1, 1, None).expect("within the limits");
    let argon2 = Argon2::new(algorithm, Version::V0x13, params);
    let hashed = argon2.hash_password(password.as_bytes());
    hashed.expect("hashed").to_string()
}

fn rehashed(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Right { rehash } => rehash,
        Verdict::Wrong => panic!("it is right"),
    }
}

#[test]
fn a_new_hash_has_the_parameters_that_owasp_asks_for() {
    let hashed = hash("correct horse").expect("hashed");
    assert!(
        hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hashed}"
    );
    assert_eq!(rehashed(verify("correct horse", Some(&hashed))), None);
    assert_eq!(verify("correct horsf", Some(&hashed)), Verdict::Wrong);
    assert_eq!(verify("", Some(&hashed)), Verdict::Wrong);
}

#[test]
fn nobodys_hash_costs_what_a_users_does() {
    let nobody = PasswordHash::new(NOBODY).expect("it parses");
    let params = Params::try_from(&nobody).expect("parameters");
    let ours = ARGON2.params();
    assert_eq!(
        (params.m_cost(), params.t_cost(), params.p_cost()),
        (ours.m_cost(), ours.t_cost(), ours.p_cost())
    );
    assert!(nobody.salt.is_some() && nobody.hash.is_some());
    assert_eq!(verify("", None), Verdict::Wrong);
}

#[test]
fn weaker_hashes_are_replaced_where_the_password_is_right() {
    for algorithm in [Algorithm::Argon2id, Algorithm::Argon2i] {
        let stored = weak("correct horse", algorithm);
        assert_eq!(verify("wrong", Some(&stored)), Verdict::Wrong);
        let new = rehashed(verify("correct horse", Some(&stored))).expect("a new hash");
        assert!(new.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new}");
    }
}

#[test]
fn bcrypt_of_htpasswd_verifies_and_is_replaced() {
    let stored = bcrypt::hash("correct horse", 4).expect("hashed");
    for mark in BCRYPT_MARKS {
        let stored = stored.replacen("$2b$", mark, 1);
        assert_eq!(bcrypt_cost(&stored), Some(4), "{stored}");
        assert_eq!(verify("wrong", Some(&stored)), Verdict::Wrong);
        let new = rehashed(verify("correct horse", Some(&stored))).expect("a new hash");
        assert!(new.starts_with("$argon2id$"), "{new}");
    }
}

#[test]
fn a_bcrypt_hash_of_which_other_texts_are_the_password_too_is_not_replaced() {
    let right = Verdict::Right { rehash: None };
    let long = "x".repeat(73);
    let stored = bcrypt::hash(&long, 4).expect("hashed");
    for typed in [&long[..72], &long, &"x".repeat(80)] {
        assert_eq!(verify(typed, Some(&stored)), right, "{}", typed.len());
    }
    assert_eq!(verify(&long[..71], Some(&stored)), Verdict::Wrong);
    let stored = bcrypt::hash("xy", 4).expect("hashed");
    assert_eq!(verify("xy\0xy", Some(&stored)), right);
    // Two bytes each: 36 of them are 72.
    for (count, replaced) in [(35, true), (36, false)] {
        let text = "\u{e4}".repeat(count);
        let stored = bcrypt::hash(&text, 4).expect("hashed");
        assert_eq!(rehashed(verify(&text, Some(&stored))).is_some(), replaced);
    }
}

#[test]
fn what_is_no_hash_is_wrong() {
    let bcrypt = bcrypt::hash("x", 4).expect("hashed");
    for stored in [
        "",
        "x",
        "plain",
        "$apr1$abc$def",
        "{SHA}abc",
        "$argon2id$v=19$m=19456,t=2,p=1$",
        "$argon2id$nothing",
        &bcrypt.replacen("$2b$", "$2x$", 1),
        &bcrypt.replacen("$04$", "$31$", 1),
        &bcrypt[..59],
    ] {
        assert_eq!(verify("x", Some(stored)), Verdict::Wrong, "{stored}");
    }
}

#[test]
fn a_password_that_is_too_long_is_wrong_even_if_it_is_right() {
    let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
    let stored = weak(&long, Algorithm::Argon2id);
    assert_eq!(verify(&long, Some(&stored)), Verdict::Wrong);
    let longest = &long[1..];
    let stored = weak(longest, Algorithm::Argon2id);
    assert_ne!(verify(longest, Some(&stored)), Verdict::Wrong);
}

fn here() -> Site {
    std::net::IpAddr::from([192, 0, 2, 1]).into()
}

#[tokio::test]
async fn verifying_works_off_the_async_threads() {
    let passwords = Passwords::new(2);
    let stored = Some(weak("correct horse", Algorithm::Argon2id));
    let right = passwords.verify(here(), "correct horse".to_owned(), stored.clone());
    assert!(rehashed(right.await.expect("not busy")).is_some());
    let wrong = passwords.verify(here(), "wrong".to_owned(), stored);
    assert_eq!(wrong.await, Ok(Verdict::Wrong));
}

#[test]
fn a_typed_text_is_verified_in_its_form_and_as_it_is() {
    let of = |typed: &str| spellings(typed.to_owned());
    assert_eq!(of("correct horse"), ["correct horse"]);
    assert_eq!(of("e\u{301}"), ["\u{e9}", "e\u{301}"]);
    assert_eq!(of("a\u{3000}b"), ["a b", "a\u{3000}b"]);
    assert_eq!(of("a\u{200b}"), ["a\u{200b}"], "it has no form");
    let long = of(&"\u{e9}".repeat(1_000_000));
    assert_eq!((long.len(), long[0].len()), (1, TYPED_BYTES_MAX));
}

#[tokio::test]
async fn a_hash_of_either_spelling_is_found_and_a_new_one_is_of_the_same() {
    let passwords = Passwords::new(2);
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let verify = async |typed: &str, stored: &str| {
        let stored = Some(stored.to_owned());
        let verdict = passwords.verify(here(), typed.to_owned(), stored);
        verdict.await.expect("not busy")
    };
    for (hashed, accepted) in [
        (composed, &[composed, decomposed][..]),
        (decomposed, &[decomposed]),
    ] {
        let stored = weak(hashed, Algorithm::Argon2id);
        let is_right = async |stored: &str| {
            let mut found = Vec::new();
            for typed in [composed, decomposed] {
                if verify(typed, stored).await != Verdict::Wrong {
                    found.push(typed);
                }
            }
            found
        };
        assert_eq!(is_right(&stored).await, accepted);
        let new = rehashed(verify(decomposed, &stored).await).expect("a new hash");
        assert_eq!(is_right(&new).await, accepted);
    }
}

#[tokio::test]
async fn so_many_of_an_address_wait_and_no_more() {
    let passwords = Passwords::with(2, 4);
    let stored = Some(weak("x", Algorithm::Argon2id));
    let long = Duration::from_secs(60);
    let held = [
        passwords.turns.take(here(), long).await,
        passwords.turns.take(here(), long).await,
    ];
    let logins = (0..50).map(|_| passwords.verify(here(), "y".to_owned(), stored.clone()));
    let logins = futures_util::future::join_all(logins);
    let (answers, ()) = tokio::join!(biased; logins, async { drop(held) });
    let count = |told: &_| answers.iter().filter(|it| *it == told).count();
    assert_eq!((count(&Ok(Verdict::Wrong)), count(&Err(Busy))), (4, 46));
}

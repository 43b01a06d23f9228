use super::*;

#[test]
fn secrets_are_a_list_of_long_ones() {
    let (a, b) = ("a".repeat(32), "b".repeat(40));
    assert_eq!(
        Secrets::parse(&a),
        Ok(Secrets(vec![a.clone().into_bytes()]))
    );
    assert_eq!(
        Secrets::parse(&format!("{a}, {b}")).expect("two").0.len(),
        2
    );
    for bad in [
        "short".to_owned(),
        format!("{a},"),
        format!("{a},short"),
        "a".repeat(31),
    ] {
        let why = Secrets::parse(&bad).expect_err(&bad);
        assert!(!why.contains(&bad) && why.contains("32 bytes"), "{why}");
    }
    assert_eq!(format!("{:?}", Secrets(vec![vec![1]])), "1 secrets");
}

#[test]
fn a_one_time_lifetime_is_half_an_hour_to_four_days() {
    for (text, seconds) in [
        ("30min", 1_800),
        ("90min", 5_400),
        ("2h", 7_200),
        ("96h", 345_600),
        ("7200", 7_200),
    ] {
        assert_eq!(
            one_time_lifetime(text),
            Ok(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    for bad in ["29min", "97h", "2", "h", "-2h", "2 hours ago", ""] {
        assert!(one_time_lifetime(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_public_url_is_an_issuer() {
    assert_eq!(
        public_url("https://a.example/auth/"),
        Ok("https://a.example/auth".to_owned())
    );
    for bad in [
        "a.example",
        "ftp://a.example",
        "https://",
        "https://a/?b",
        "https://a/#b",
        "https://u:p@a/",
    ] {
        assert!(public_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_audience_has_nothing_invisible() {
    assert_eq!(audience("my api"), Ok("my api".to_owned()));
    let why = audience("api\u{200b}").expect_err("invisible");
    assert_eq!(
        why,
        "an audience must not contain the invisible character U+200B"
    );
}

#[test]
fn proxies_are_addresses_or_networks() {
    assert_eq!(
        networks("10.0.0.0/8, 192.0.2.1,::1").map(|all| all.len()),
        Ok(3)
    );
    for bad in ["", "10.0.0.0/33", "example.com", "10.0.0.0/8,"] {
        assert!(networks(bad).is_err(), "{bad}");
    }
}

#[test]
fn origins_are_as_browsers_write_them() {
    assert_eq!(cors_origins("*"), Ok(CorsOrigins::Any));
    let two = vec![
        "https://a.example".to_owned(),
        "http://localhost:8080".to_owned(),
    ];
    assert_eq!(
        cors_origins("https://a.example, http://localhost:8080/"),
        Ok(CorsOrigins::Only(two))
    );
    for bad in [
        "a.example",
        "https://a.example/path",
        "https://a.example:443",
        "*,https://a",
    ] {
        assert!(cors_origins(bad).is_err(), "{bad}");
    }
}

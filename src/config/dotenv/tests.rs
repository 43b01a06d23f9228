use super::*;

const OURS: [&str; 3] = ["PORT", "REDIS_URL", "SECRET_KEY"];

fn read(text: &str) -> Dotenv {
    let environment = |name: &str| (name == "FROM_OUTSIDE").then(|| "outside".to_owned());
    parse(text, |name| OURS.contains(&name), environment)
}

/// The value that a line gives to `X`.
fn value(text: &str) -> Option<String> {
    let read = read(text);
    assert!(read.mistakes.is_empty(), "{read:?}");
    read.variables.get("X").cloned()
}

#[test]
fn values_are_read_as_docker_compose_reads_them() {
    for (text, expected) in [
        ("X=1", "1"),
        ("X=", ""),
        ("X=two words", "two words"),
        ("X=  two words \t", "two words"),
        ("X = 1", "1"),
        ("X: 1", "1"),
        ("export X=1", "1"),
        ("  export\tX=1", "1"),
        ("X=1 # it's a comment", "1"),
        ("X=1\t# it's a comment", "1"),
        ("X= # it's a comment", ""),
        ("X=a#b", "a#b"),
        ("X=#b", "#b"),
        (r"X=C:\dir\new", r"C:\dir\new"),
        ("X=it's", "it's"),
        ("X='a # b' # c", "a # b"),
        ("X='$A ${B}'", "$A ${B}"),
        (r"X='it\'s'", "it's"),
        ("X='a\nb'", "a\nb"),
        ("X=' a \n b ' ", " a \n b "),
        ("X=\"a\nA=b\n\"", "a\nA=b\n"),
        (r#"X="a\nb\t\"c\"\\ \d""#, "a\nb\t\"c\"\\ \\d"),
        (r#"X="\$A""#, "$A"),
        ("X=$$A", "$A"),
        ("A=1\nX=$A-${A}", "1-1"),
        ("A=1\nX=\"$A\"", "1"),
        ("X=${FROM_OUTSIDE}", "outside"),
        ("FROM_OUTSIDE=file\nX=$FROM_OUTSIDE", "outside"),
        ("X=${A:-d}", "d"),
        ("X=${A-d}", "d"),
        ("A=\nX=${A:-d}", "d"),
        ("A=\nX=${A-d}", ""),
        ("A=1\nX=${A:-d}${A-d}", "11"),
        ("X=${A:-${B:-a b}}", "a b"),
        ("A=1\nX=${A:+other}${B:+none}", "other"),
        ("A=1\nX=${A:?needed}", "1"),
        ("X=1\nX=2", "2"),
        (
            "X=redis://:${FROM_OUTSIDE}@redis:6379/0",
            "redis://:outside@redis:6379/0",
        ),
    ] {
        assert_eq!(value(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn a_name_alone_leaves_the_environment_as_it_is() {
    let read = read("PORT\nREDIS_URL # from outside\nexport SECRET_KEY\n");
    assert!(read.variables.is_empty() && read.mistakes.is_empty() && read.passed_over.is_empty());
}

#[test]
fn a_line_of_another_program_never_is_a_mistake() {
    for (text, passed_over) in [
        ("two words\nPORT=1", vec![1]),
        ("9A=x\nPORT=1", vec![]),
        ("=x\nPORT=1", vec![1]),
        ("MOTD='it\nPORT=1", vec![1]),
        ("MOTD='it's'\nPORT=1", vec![1]),
        ("MOTD=\"it\n\nREDIS\nPORT=1\nA=\"b\"", vec![1]),
        ("MOTD=\"\nPORT=2\n\"\nPORT=1", vec![]),
        ("MOTD=caf\u{fffd}\nPORT=1", vec![]),
        ("COST=5$\nPORT=1", vec![1]),
        ("COST=$NOT_SET\nPORT=1", vec![1]),
        ("COST=${A:?needed}\nPORT=1", vec![1]),
        ("[section]\nPORT=1", vec![]),
    ] {
        let read = read(text);
        assert!(read.mistakes.is_empty(), "{text}: {read:?}");
        assert_eq!(
            read.variables.get("PORT").map(String::as_str),
            Some("1"),
            "{text}"
        );
        assert!(
            read.passed_over.starts_with(&passed_over),
            "{text}: {read:?}"
        );
    }
}

#[test]
fn a_line_of_ours_that_cannot_be_read_is_named_and_not_shown() {
    for (line, why) in [
        ("SECRET_KEY hush", "must read NAME=value"),
        ("REDIS_URL redis://:hush@a", "must read NAME=value"),
        ("SECRET_KEY='hush", "no closing '"),
        ("SECRET_KEY=\"hush\nhush", "no closing \""),
        ("SECRET_KEY='hush'hush", "behind the closing '"),
        ("SECRET_KEY=hush\u{fffd}", "must be UTF-8 text"),
        ("SECRET_KEY=hush$", "$ that refers to nothing"),
        ("SECRET_KEY=hush$1", "$ that refers to nothing"),
        ("SECRET_KEY=hush${A", "without its }"),
        ("SECRET_KEY=hush${A!}", "$ that refers to nothing"),
        ("SECRET_KEY=hush${A:}", "$ that refers to nothing"),
        (
            "SECRET_KEY=$hushhush",
            "refers to a variable, which is not set",
        ),
        (
            "SECRET_KEY=$HUSH_KEY",
            "refers to $HUSH_KEY, which is not set",
        ),
        (
            "SECRET_KEY=${KEY_A:?hush}",
            "refers to $KEY_A, which is not set",
        ),
    ] {
        let read = read(&format!("A=1\n\n{line}\nPORT=2\nlast word\n"));
        let told: Vec<_> = read.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{line}: {told:?}");
        let name = line.split([' ', '=']).next().expect("a name");
        assert!(
            told[0].starts_with(&format!(".env, line 3: {name} ")),
            "{told:?}"
        );
        assert!(
            told[0].contains(why) && !told[0].contains("hush"),
            "{told:?}"
        );
        assert_eq!(
            read.variables.get("PORT").map(String::as_str),
            Some("2"),
            "{line}"
        );
        assert!(
            read.passed_over
                .contains(&(6 + line.matches('\n').count() - 1)),
            "{read:?}"
        );
    }
}

#[test]
fn references_cannot_blow_a_value_up() {
    let mut text = "A0=xxxxxxxxxxxxxxxx\n".to_owned();
    for n in 1..60 {
        text.push_str(&format!("A{n}=$A{0}$A{0}\n", n - 1));
    }
    text.push_str("SECRET_KEY=$A59\n");
    let told = read(&text).mistakes;
    assert_eq!(told.len(), 1, "{told:?}");
    let nested = format!("SECRET_KEY={}{}", "${A:-".repeat(5_000), "}".repeat(5_000));
    assert!(
        read(&nested).mistakes[0]
            .to_string()
            .contains("nests more than")
    );
}

//! Reads a password from the terminal or from standard input. Never from the arguments, which every user of the
//! machine can read.

use std::io::{BufRead, BufReader, IsTerminal as _, Read};

use crate::auth::password::PASSWORD_BYTES_MAX;
use crate::auth::precis::{self, Refused};
use crate::auth::user::UserName;
use crate::cli::error::Failure;
use crate::text::without_mark;

/// Shortest password, in characters (NIST SP 800-63B, section 5.1.1.1).
const PASSWORD_CHARS_MIN: usize = 8;

/// # Errors
/// When it can't be read, is too short or too long, or the second entry is another.
pub(super) fn ask(name: &UserName) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return check(&line(stdin.lock())?);
    }
    let prompt = |text: String| {
        let typed = rpassword::prompt_password(text);
        typed.map_err(|error| Failure::io("cannot read the password", &error))
    };
    let password = check(&prompt(format!("Password for {name}: "))?)?;
    if check(&prompt("The same again: ".to_owned())?).ok() != Some(password.clone()) {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(password)
}

/// The first line, without its end.
fn line(input: impl Read) -> Result<String, Failure> {
    let mut line = Vec::new();
    // One byte more than is allowed, and a line's end.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    let read = BufReader::new(input)
        .take(most)
        .read_until(b'\n', &mut line);
    read.map_err(|error| Failure::io("cannot read the password from stdin", &error))?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    // Some shells put a byte order mark in front of what they pipe.
    String::from_utf8(without_mark(&line).to_vec())
        .map_err(|_| Failure::usage("the password must be UTF-8 text"))
}

/// The one form that all spellings of a password have.
fn prepare(password: &str) -> Result<String, Failure> {
    precis::password(password).map_err(|why| {
        let place = match why {
            // Which one it is would show a part of the password.
            Refused::Character { position, .. } => format!("character {position}"),
            Refused::Empty | Refused::Directions => "it".to_owned(),
        };
        Failure::usage(format!(
            "the password can't be used: {place} is a control character, invisible or not in Unicode"
        ))
    })
}

fn check(password: &str) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::usage(
            "no password was given: type it, or pipe it in as one line",
        ));
    }
    let password = prepare(password)?;
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(Failure::usage(format!(
            "a password must have at least {PASSWORD_CHARS_MIN} characters"
        )));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::usage(format!(
            "a password must have at most {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_without_its_end_and_with_its_spaces() {
        for (input, expected) in [
            ("correct horse\n", "correct horse"),
            ("correct horse\r\n", "correct horse"),
            ("\u{feff}correct horse\r\n", "correct horse"),
            (" correct horse ", " correct horse "),
            ("correct horse\nmore", "correct horse"),
            ("", ""),
        ] {
            assert_eq!(line(input.as_bytes()).expect(input), expected);
        }
        assert!(line(&b"\xff\xff\n"[..]).is_err());
    }

    #[test]
    fn a_password_is_taken_in_one_form_and_no_part_of_it_is_told() {
        let taken = |text: &str| check(text);
        for typed in [
            "caf\u{e9} \u{e0} la carte",
            "cafe\u{301}\u{3000}a\u{300} la carte",
        ] {
            assert_eq!(taken(typed).expect("taken"), "caf\u{e9} \u{e0} la carte");
        }
        for (bad, place) in [
            ("12345678\u{200b}", "character 9"),
            ("\u{feff}12345678", "character 1"),
        ] {
            let told = taken(bad).expect_err("refused").message;
            assert!(told.contains(place) && !told.contains("1234"), "{told}");
        }
    }

    #[test]
    fn a_password_is_neither_short_nor_endless() {
        let taken = |text: &str| line(text.as_bytes()).and_then(|it| check(&it)).is_ok();
        assert!(taken("12345678") && taken("ääääääää"));
        assert!(taken(&"x".repeat(PASSWORD_BYTES_MAX)));
        assert!(taken(&format!("{}\r\n", "x".repeat(PASSWORD_BYTES_MAX))));
        for bad in [
            "",
            "\n",
            "1234567",
            "ääääääa",
            &"x".repeat(PASSWORD_BYTES_MAX + 1),
            &"x".repeat(5_000),
        ] {
            assert!(!taken(bad), "{}", bad.len());
        }
    }
}

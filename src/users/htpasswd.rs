//! Users out of an htpasswd file: those with bcrypt hashes. Each line that can't be taken is named by its number and
//! its user, and nothing else of it is shown: what stands where a name should be may be a password.

use std::collections::HashMap;
use std::path::Path;

use crate::auth::password::{BCRYPT_COST_MAX, bcrypt_cost};
use crate::auth::user::UserName;
use crate::cli::error::Failure;
use crate::text::Text;

/// Most bytes of a file, well over what `USERS_MAX` lines have.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most users of one import: they are added in one step, which Redis does nothing else meanwhile.
const USERS_MAX: usize = 10_000;

/// What a file holds.
#[derive(Default)]
pub(super) struct Read {
    /// Names and hashes.
    pub users: Vec<(UserName, String)>,
    /// The lines that can't be taken, each with its number and why.
    pub refused: Vec<Refused>,
}

pub(super) struct Refused {
    pub line: usize,
    pub why: String,
}

/// The users of a file; `-` is stdin.
///
/// # Errors
/// When the file can't be read, holds no user or too many, or, unless `only_bcrypt`, any line of it can't be taken.
pub(super) fn read(path: &Path, only_bcrypt: bool) -> Result<Read, Failure> {
    let shown = path.display();
    let text = Text::read(path, FILE_BYTES_MAX)
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let read = parse(&text);
    let mut mistakes = Vec::new();
    if !only_bcrypt || read.users.is_empty() {
        mistakes.extend(read.refused.iter().map(ToString::to_string));
    }
    if read.users.is_empty() && (only_bcrypt || mistakes.is_empty()) {
        mistakes.push("it holds no user that can be taken".to_owned());
    }
    if read.users.len() > USERS_MAX {
        mistakes.push(format!("it holds more than {USERS_MAX} users"));
    }
    if mistakes.is_empty() {
        return Ok(read);
    }
    let mistakes = mistakes.join("\n");
    Err(Failure::usage(format!(
        "{shown}: nothing was imported\n{mistakes}"
    )))
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Of several lines for one name the first counts, as for web servers, even if it can't be taken.
fn parse(text: &Text) -> Read {
    let mut read = Read::default();
    let mut seen: HashMap<UserName, usize> = HashMap::new();
    for line in text.lines() {
        if line.is_blank() || line.is_comment() {
            continue;
        }
        let number = line.number;
        let named = line.text().map_err(|_| "is not UTF-8 text".to_owned());
        let user = named.and_then(split).and_then(|(name, hash)| {
            let first = *seen.entry(name.clone()).or_insert(number);
            if first != number {
                return Err(format!("{name}: is in line {first} already"));
            }
            check(&name, hash)?;
            Ok((name, hash.to_owned()))
        });
        match user {
            Ok(user) => read.users.push(user),
            Err(why) => read.refused.push(Refused { line: number, why }),
        }
    }
    read
}

/// `name:hash`, or as nginx reads it `name:hash:comment`. Blanks around are no part of it, as for Apache.
fn split(line: &str) -> Result<(UserName, &str), String> {
    let (name, rest) = line
        .trim()
        .split_once(':')
        .ok_or_else(|| "must be name:hash".to_owned())?;
    let name = UserName::prepare(name).map_err(|why| why.to_string())?;
    let hash = rest.split_once(':').map_or(rest, |(hash, _)| hash);
    Ok((name, hash.trim_end()))
}

fn check(name: &UserName, hash: &str) -> Result<(), String> {
    match bcrypt_cost(hash) {
        Some(cost) if cost <= BCRYPT_COST_MAX => Ok(()),
        Some(cost) => Err(format!(
            "{name}: a bcrypt cost of {cost} is too much: at most {BCRYPT_COST_MAX}"
        )),
        None => Err(format!(
            "{name}: {}; only bcrypt is taken: htpasswd -B",
            kind(hash)
        )),
    }
}

/// What a hash that is not taken seems to be.
fn kind(hash: &str) -> &'static str {
    const KINDS: [(&str, &str); 7] = [
        ("$apr1$", "an MD5 hash (apr1)"),
        ("$1$", "an MD5 hash"),
        ("{SHA}", "an unsalted SHA-1 hash"),
        ("{SSHA}", "a SHA-1 hash"),
        ("$5$", "a SHA-256 hash (crypt)"),
        ("$6$", "a SHA-512 hash (crypt)"),
        ("$2", "a bcrypt hash that is damaged or of a broken version"),
    ];
    let known = KINDS.iter().find(|(mark, _)| hash.starts_with(mark));
    known.map_or("plain text or a crypt hash", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Read {
        parse(&Text::of(text.as_bytes()).expect("not UTF-16"))
    }

    #[test]
    fn bcrypt_lines_are_taken_however_the_file_is_written() {
        let hash = bcrypt::hash("x", 4).expect("hashed");
        let y = hash.replacen("$2b$", "$2y$", 1);
        let text = format!(
            "\u{feff}# users\nann:{hash}\r\n\nJörg M:{y}\n  # nginx\n bob:{hash}:since 2020: night shift \n"
        );
        let read = read(&text);
        let shown: Vec<_> = read
            .users
            .iter()
            .map(|(name, hash)| (name.as_str(), hash))
            .collect();
        assert_eq!(shown, [("ann", &hash), ("Jörg M", &y), ("bob", &hash)]);
        assert!(read.refused.is_empty());
    }

    #[test]
    fn each_line_that_cannot_be_taken_is_named_and_no_hash_is_shown() {
        let good = bcrypt::hash("x", 4).expect("hashed");
        let text = format!(
            "ann:{good}\nbob:$apr1$salty$hashhash\ncyd:{{SHA}}hashhash\ndot:hunter2hash\nhashhash\n\
             ann:{good}\n:{good}\neve:{}\nfay:{}\ngil:{}\nbob:{good}\n",
            good.replacen("$04$", "$15$", 1),
            good.replacen("$2b$", "$2x$", 1),
            &good[..59],
        );
        let read = read(&text);
        let told: Vec<_> = read.refused.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2: bob: an MD5",
            "line 3: cyd: an unsalted SHA-1",
            "line 4: dot: plain",
            "line 5: must be name:hash",
            "line 6: ann: is in line 1",
            "line 7: a user's name",
            "line 8: eve: a bcrypt cost of 15",
            "line 9: fay: a bcrypt hash that",
            "line 10: gil: a bcrypt hash that",
            "line 11: bob: is in line 2",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
            assert!(
                !told.contains("hashhash") && !told.contains("hunter2"),
                "{told}"
            );
        }
        let taken: Vec<_> = read.users.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(taken, ["ann"]);
    }
}

//! Users out of an htpasswd file: those with bcrypt hashes. All mistakes are told, by line, and nothing of a line
//! but its name: what stands where a name should be may be a password.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::auth::password::{BCRYPT_COST_MAX, bcrypt_cost};
use crate::auth::user::UserName;
use crate::cli::error::Failure;

/// Most bytes of a file, well over what `USERS_MAX` lines have.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most users of one import: they are added in one step, which Redis does nothing else meanwhile.
const USERS_MAX: usize = 10_000;

/// Names and hashes.
///
/// # Errors
/// When the file can't be read, or any line of it can't be taken.
pub(super) fn read(path: &Path) -> Result<Vec<(UserName, String)>, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{shown} is too large: at most {FILE_BYTES_MAX} bytes, {USERS_MAX} users"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{shown} is not UTF-8 text")))?;
    parse(&text).map_err(|mistakes| {
        let mistakes = mistakes.join("\n");
        Failure::usage(format!("{shown}: nothing was imported\n{mistakes}"))
    })
}

fn parse(text: &str) -> Result<Vec<(UserName, String)>, Vec<String>> {
    let (mut users, mut mistakes) = (Vec::new(), Vec::new());
    let mut seen: HashMap<UserName, usize> = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok((name, hash)) => match seen.insert(name.clone(), number) {
                None => users.push((name, hash)),
                Some(before) => mistakes.push(format!(
                    "line {number}: {name}: is in line {before} already"
                )),
            },
            Err(why) => mistakes.push(format!("line {number}: {why}")),
        }
    }
    if users.is_empty() && mistakes.is_empty() {
        mistakes.push("it holds no user".to_owned());
    }
    if users.len() > USERS_MAX {
        mistakes.push(format!("it holds more than {USERS_MAX} users"));
    }
    if mistakes.is_empty() {
        Ok(users)
    } else {
        Err(mistakes)
    }
}

fn parse_line(line: &str) -> Result<(UserName, String), String> {
    let (name, hash) = line
        .split_once(':')
        .ok_or_else(|| "must be name:hash".to_owned())?;
    let name = UserName::prepare(name).map_err(|why| why.to_string())?;
    let hash = hash.trim_end();
    match bcrypt_cost(hash) {
        Some(cost) if cost <= BCRYPT_COST_MAX => Ok((name, hash.to_owned())),
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

    #[test]
    fn bcrypt_lines_are_taken() {
        let hash = bcrypt::hash("x", 4).expect("hashed");
        let y = hash.replacen("$2b$", "$2y$", 1);
        let text = format!("# users\nann:{hash}\r\n\nJörg M:{y}\n");
        let users = parse(&text).expect("good lines");
        let shown: Vec<_> = users
            .iter()
            .map(|(name, hash)| (name.as_str(), hash))
            .collect();
        assert_eq!(shown, [("ann", &hash), ("Jörg M", &y)]);
    }

    #[test]
    fn all_mistakes_are_told_by_line_and_no_hash_is_shown() {
        let good = bcrypt::hash("x", 4).expect("hashed");
        let text = format!(
            "ann:{good}\nbob:$apr1$salty$hashhash\ncyd:{{SHA}}hashhash\ndot:hunter2hash\nhashhash\n\
             ann:{good}\n:{good}\neve:{}\nfay:{}\ngil:{}\n",
            good.replacen("$04$", "$15$", 1),
            good.replacen("$2b$", "$2x$", 1),
            &good[..59],
        );
        let told = parse(&text).expect_err("bad lines");
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
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
            assert!(
                !told.contains("hashhash") && !told.contains("hunter2"),
                "{told}"
            );
        }
        assert!(parse("# nothing\n").is_err());
    }
}

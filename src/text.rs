//! The one reader of text files: imports, htpasswd files, `.env`, keys and secrets.
//!
//! `-` is stdin where the caller allows it. A byte order mark at the start is dropped, lines end with LF or CRLF, and a
//! comment is a line whose first character, after blanks, is `#`. No error repeats anything of a file: it may hold a
//! secret.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What PowerShell writes with `>`.
const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// A file's content, without its byte order mark. It has no Debug: it may hold a secret.
pub(crate) struct Text(Vec<u8>);

impl Text {
    /// The file, or stdin for `-`.
    ///
    /// # Errors
    /// When it can't be read, is larger than `bytes_max`, is UTF-16 or has NUL bytes.
    pub fn read(path: &Path, bytes_max: u64) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Self::take(std::io::stdin().lock(), bytes_max);
        }
        Self::read_file(path, bytes_max)
    }

    /// As `read`, where `-` is a file's name like any other.
    pub fn read_file(path: &Path, bytes_max: u64) -> Result<Self> {
        Self::take(File::open(path)?, bytes_max)
    }

    fn take(input: impl Read, bytes_max: u64) -> Result<Self> {
        let mut bytes = Vec::new();
        let most = bytes_max.saturating_add(1);
        input.take(most).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            let why = format!("it is larger than {bytes_max} bytes");
            return Err(Error::new(ErrorKind::FileTooLarge, why));
        }
        Self::of(&bytes)
    }

    /// # Errors
    /// When it is UTF-16 or has NUL bytes.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        if UTF_16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
            return Err(invalid("it is UTF-16 text: save it as UTF-8"));
        }
        if bytes.contains(&0) {
            return Err(invalid(
                "it has NUL bytes, as UTF-16 text has: save it as UTF-8",
            ));
        }
        Ok(Self(without_mark(bytes).to_vec()))
    }

    /// All of it, every line ended by LF.
    ///
    /// # Errors
    /// With the number of the first line that is not UTF-8.
    pub fn whole(self) -> Result<String> {
        let bad = self.lines().find(|line| line.text().is_err());
        if let Some(Line { number, .. }) = bad {
            return Err(invalid(&format!("line {number} is not UTF-8 text")));
        }
        let text = String::from_utf8_lossy(&self.0); // nothing is lost: each line was UTF-8
        Ok(text.replace("\r\n", "\n"))
    }

    /// All of it, every line ended by LF, with a replacement character where it is not UTF-8.
    pub fn lossy(self) -> String {
        String::from_utf8_lossy(&self.0).replace("\r\n", "\n")
    }

    /// The one line of a file that holds a single value, without the line ends behind it.
    ///
    /// # Errors
    /// When it is not UTF-8, is empty, or has a second line.
    pub fn value(self) -> Result<String> {
        let text = self.whole()?;
        let line = text.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() {
            return Err(invalid("it is empty"));
        }
        if line.contains(['\n', '\r']) {
            return Err(invalid("it has more than one line"));
        }
        Ok(line.to_owned())
    }

    /// Its lines without their ends. What follows the last line end is a line unless it is empty.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let ended = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        let lines = ended.split(|byte| *byte == b'\n').zip(1..);
        lines.map(|(bytes, number)| Line {
            number,
            bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes),
        })
    }
}

/// A line of a file, without its end.
pub(crate) struct Line<'a> {
    /// From 1.
    pub number: usize,
    bytes: &'a [u8],
}

impl<'a> Line<'a> {
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> std::result::Result<&'a str, std::str::Utf8Error> {
        std::str::from_utf8(self.bytes)
    }

    pub fn is_blank(&self) -> bool {
        self.bytes.trim_ascii().is_empty()
    }

    pub fn is_comment(&self) -> bool {
        self.bytes.trim_ascii_start().starts_with(b"#")
    }
}

/// What follows a byte order mark, if there is one.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line as `number:text`, with a mark for what it is.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let text = Text::of(bytes).expect("not UTF-16");
        let show = |line: Line<'_>| {
            let mark = match (line.is_blank(), line.is_comment()) {
                (true, _) => "blank ",
                (_, true) => "comment ",
                _ => "",
            };
            let shown = line.text().unwrap_or("not UTF-8");
            format!("{mark}{}:{shown}", line.number)
        };
        text.lines().map(show).collect()
    }

    #[test]
    fn lines_are_read_in_one_way_whoever_wrote_them() {
        let table: &[(&[u8], &[&str])] = &[
            (b"a\nb\n", &["1:a", "2:b"]),
            (b"a\nb", &["1:a", "2:b"]),
            (b"a\r\nb\r\n", &["1:a", "2:b"]),
            (b"a\r\nb\nc\r\n", &["1:a", "2:b", "3:c"]),
            (b"\xef\xbb\xbfa\r\n", &["1:a"]),
            (b"\xef\xbb\xbf# c\n", &["comment 1:# c"]),
            (b"a\n\n \t\nb", &["1:a", "blank 2:", "blank 3: \t", "4:b"]),
            (
                b"#a\n \t# b\na#c",
                &["comment 1:#a", "comment 2: \t# b", "3:a#c"],
            ),
            (b" a \n", &["1: a "]),
            (b"a\rb\n", &["1:a\rb"]),
            (b"a\r\r\n", &["1:a\r"]),
            (b"a\n\xff\nb", &["1:a", "2:not UTF-8", "3:b"]),
            (b"a\n\n", &["1:a", "blank 2:"]),
            (b"", &["blank 1:"]),
            (b"\n", &["blank 1:"]),
        ];
        for (bytes, expected) in table {
            assert_eq!(shown(bytes), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_file_that_holds_one_value_is_that_value() {
        let value = |bytes: &[u8]| {
            let value = Text::of(bytes).and_then(Text::value);
            value.map_err(|error| error.to_string())
        };
        for bytes in [
            &b"a b"[..],
            b"a b\n",
            b"a b\r\n",
            b"\xef\xbb\xbfa b\n",
            b"a b\n\n",
        ] {
            assert_eq!(value(bytes).as_deref(), Ok("a b"), "{bytes:?}");
        }
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b" \r\n", "empty"),
            (b"hush\nhush\n", "more than one line"),
            (b"hush\n\xff", "line 2 is not UTF-8"),
            (b"\xff\xfeh\0", "save it as UTF-8"),
            (b"\xfe\xff\0h", "save it as UTF-8"),
            (b"h\0u\0s\0h\0", "save it as UTF-8"),
        ] {
            let told = value(bytes).expect_err(why);
            assert!(told.contains(why) && !told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn all_of_a_text_has_line_feeds_alone() {
        let whole = Text::of(b"\xef\xbb\xbfa\r\nb\rc\n").and_then(Text::whole);
        assert_eq!(whole.expect("UTF-8"), "a\nb\rc\n");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_and_never_cut() {
        assert!(Text::take(&b"12345"[..], 5).is_ok());
        let refused = Text::take(&b"123456"[..], 5).err().expect("too large");
        assert_eq!(refused.to_string(), "it is larger than 5 bytes");
        let directory = Text::read_file(&std::env::temp_dir(), 5);
        assert!(directory.is_err_and(|error| error.to_string().contains("directory")));
    }
}

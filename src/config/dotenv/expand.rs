//! References to variables and escapes in a value, as Docker Compose has them.

/// Deepest nesting of defaults: `${A:-${B:-…}}`.
const DEPTH_MAX: usize = 8;
/// Longest value. Linux takes no longer ones in an environment either.
const VALUE_BYTES_MAX: usize = 128 * 1024;
const LONE: &str = "has a $ that refers to nothing: write $$, or put the value into single quotes";

/// The value with its references replaced: `$NAME`, `${NAME}`, and `${NAME:-default}`, `${NAME:?why}`, `${NAME:+other}`
/// with or without the colon. `$$` is a dollar sign.
///
/// # Errors
/// What is wrong with it, without the value.
pub(super) fn expand(
    value: &str,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    nested(value, &look_up, 0)
}

fn nested(
    value: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nests more than {DEPTH_MAX} references"));
    }
    let (mut out, mut rest) = (String::new(), value);
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some(braced) = behind.strip_prefix('{') {
            let end = closing_brace(braced).ok_or("has a ${ without its }")?;
            out.push_str(&replaced(&braced[..end], look_up, depth)?);
            rest = &braced[end + 1..];
        } else {
            let (name, behind) = split_name(behind).ok_or(LONE)?;
            out.push_str(&look_up(name).ok_or_else(|| unset(name))?);
            rest = behind;
        }
        if out.len() > VALUE_BYTES_MAX {
            return Err(format!("is longer than {VALUE_BYTES_MAX} bytes"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between the braces.
fn replaced(
    braced: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> Result<String, String> {
    let (name, behind) = split_name(braced).ok_or(LONE)?;
    let given = look_up(name);
    let (given, operator) = match behind.strip_prefix(':') {
        Some(operator) => (given.filter(|value| !value.is_empty()), operator),
        None => (given, behind),
    };
    let mut operator = operator.chars();
    match (operator.next(), given) {
        (None, _) if behind.starts_with(':') => Err(LONE.to_owned()),
        (None | Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => nested(operator.as_str(), look_up, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (None | Some('?'), None) => Err(unset(name)),
        (Some(_), _) => Err(LONE.to_owned()),
    }
}

fn unset(name: &str) -> String {
    // What follows a stray $ may be a part of a secret: only a name that is written as variables are is shown.
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'_';
    let shown = if name.contains('_') && name.bytes().all(plain) {
        format!("${name}")
    } else {
        "a variable".to_owned()
    };
    format!(
        "refers to {shown}, which is not set: set it above, give it a default as in ${{NAME:-default}}, or write $$ for a \
         dollar sign"
    )
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    let begins = text.starts_with(|c: char| part(c) && !c.is_ascii_digit());
    begins.then(|| text.split_at(end))
}

/// Where the brace is that closes one opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1;
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|at| {
        match bytes[*at] {
            b'{' if *at > 0 && bytes[*at - 1] == b'$' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

/// The escapes of a value in double quotes: a dollar sign that is escaped refers to nothing. Other backslashes stay.
pub(super) fn unescape(value: &str) -> String {
    let (mut out, mut chars) = (String::new(), value.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('\\' | '"')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

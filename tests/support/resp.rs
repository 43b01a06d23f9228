//! One command on a connection of its own, over the bare protocol: it knows nothing of topologies, sends nothing
//! twice, and a server that does not answer costs a second.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest that one command may take. A paused server takes it all.
const COMMAND_S_MAX: u64 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    /// As text, whatever it is; a list's members one behind the other.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }

    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            other => vec![other.text()],
        }
    }
}

/// Errors are the server's own words, or what went wrong on the way.
pub async fn command(port: u16, args: &[&str]) -> Result<Reply, String> {
    let limit = Duration::from_secs(COMMAND_S_MAX);
    match tokio::time::timeout(limit, ask(port, args)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {COMMAND_S_MAX} s")),
    }
}

async fn ask(port: u16, args: &[&str]) -> Result<Reply, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    let mut stream = BufReader::new(stream.map_err(|error| error.to_string())?);
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(|error| error.to_string())?;
    read(&mut stream).await
}

async fn read(stream: &mut BufReader<TcpStream>) -> Result<Reply, String> {
    let mut line = String::new();
    let got = stream.read_line(&mut line).await;
    got.map_err(|error| error.to_string())?;
    let line = line.trim_end();
    let (kind, rest) = line
        .split_at_checked(1)
        .ok_or("the connection was closed")?;
    let number = || rest.parse::<i64>().map_err(|error| error.to_string());
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => Err(rest.to_owned()),
        ":" => Ok(Reply::Number(number()?)),
        "$" => read_text(stream, number()?).await,
        "*" => {
            let mut items = Vec::new();
            for _ in 0..number()? {
                items.push(Box::pin(read(stream)).await?);
            }
            Ok(Reply::List(items))
        }
        _ => Err(format!("not understood: {line}")),
    }
}

async fn read_text(stream: &mut BufReader<TcpStream>, length: i64) -> Result<Reply, String> {
    let Ok(length) = usize::try_from(length) else {
        return Ok(Reply::Nil);
    };
    let mut bytes = vec![0; length + 2]; // and the end of the line
    let got = stream.read_exact(&mut bytes).await;
    got.map_err(|error| error.to_string())?;
    bytes.truncate(length);
    Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

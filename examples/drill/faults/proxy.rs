//! A way to Redis that can be cut: what is sent into it then goes nowhere and nobody is told, as when packets are
//! dropped.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// To a `redis://host:port`. Ends with the process.
    pub async fn start(to: String) -> Self {
        let to = to.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let cut = watch::Sender::new(false);
        let told = cut.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(join(near, to.clone(), told.clone()));
            }
        });
        Self { port, cut }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn join(near: TcpStream, to: String, cut: watch::Receiver<bool>) {
    let mut told = cut.clone();
    // Who connects while it is cut is heard only when it is mended.
    if told.wait_for(|cut| !cut).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_in, far_out, cut.clone()) => {}
        () = copy(far_in, near_out, cut) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if cut.wait_for(|cut| !cut).await.is_err() || to.write_all(&buffer[..bytes]).await.is_err()
        {
            return;
        }
    }
}

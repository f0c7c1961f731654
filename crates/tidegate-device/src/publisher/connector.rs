//! How the bytes to the broker are carried, where it is not by a TCP socket of ours.

use futures_util::future::{BoxFuture, FutureExt};
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream to a broker: a TCP socket, a serial line, a simulated network.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

type Connect = dyn Fn(String) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync;

/// Makes one stream for each attempt to connect. Clones share the function.
#[derive(Clone)]
pub struct Connector(Arc<Connect>);

impl Connector {
    /// A connector from a function that is given `host:port`, as the configuration names them.
    ///
    /// An error is reported as [`Event::Disconnected`](super::Event::Disconnected), and the next
    /// attempt comes after the usual wait; `connect_timeout` covers the attempt.
    pub fn new<F, S>(connect: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        Self(Arc::new(move |address| {
            connect(address)
                .map(|stream| stream.map(|stream| Box::new(stream) as Box<dyn Stream>))
                .boxed()
        }))
    }

    /// Makes a stream, so that one connector may stand in front of another.
    pub fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        (self.0)(address)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

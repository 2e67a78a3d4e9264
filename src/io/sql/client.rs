//! A connection whose every call ends: with an answer, or because the server is silent for too long,
//! or because the work shall stop.
//!
//! The engine's futures run here on a runtime of the connection's own, and go no further.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{join_all, join3};
use postgres::types::{ToSql, Type};
use postgres::{Row, Statement};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Sleep, sleep};
use tokio_postgres::{Connection, RowStream};

use super::connect::{self, Connected, Failure};
use super::wire::Wire;
use crate::interrupt::Interrupt;
use crate::io::conninfo::{ConnInfo, Endpoint};

/// How often the interrupt is looked at.
const SLICE: Duration = Duration::from_millis(100);
/// How long a good-bye to the server may take.
const GOOD_BYE: Duration = Duration::from_millis(200);

/// What ends a wait.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// How long the server may be silent.
    pub(super) silence: Duration,
    /// Whether the work shall stop.
    pub(super) interrupt: Interrupt,
    /// Whether just this is not wanted any more.
    pub(super) over: Interrupt,
}

impl Limits {
    fn is_stopped(&self) -> bool {
        self.interrupt.is_set() || self.over.is_set()
    }
}

/// Why a call did not end well.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What the server or the connection says.
    Engine(postgres::Error),
    /// What happened at each server that was tried.
    Unreachable(Vec<Failure>),
    /// The server is not what it should be.
    WrongKind(&'static str),
    /// The system refuses to begin.
    System(std::io::Error),
    /// The connection has ended before.
    Closed,
    /// The server has been silent for so long.
    Silence(Duration),
    /// The work shall stop.
    Interrupted,
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Self {
        Self::Engine(error)
    }
}

type Answer<T> = Result<T, postgres::Error>;
type Outcome<T> = Result<T, Trouble>;

/// A connection.
pub(super) struct Client {
    engine: Option<Arc<tokio_postgres::Client>>,
    line: Line,
    /// The one server and address that it leads to.
    endpoint: Endpoint,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.line.limits).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the first server of the list that will do.
    pub(super) fn connect(conninfo: &ConnInfo, limits: Limits) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Trouble::System)?;
        let mut line = Line { runtime: Some(runtime), connection: None, limits };
        let Connected { engine, endpoint } = connect::through(&mut line, conninfo)?;
        Ok(Self { engine: Some(Arc::new(engine)), line, endpoint })
    }

    /// The one server and address that it leads to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// From now on the server may be silent for that long.
    pub(super) fn allow_silence(&mut self, silence: Duration) {
        self.line.limits.silence = silence;
    }

    /// From now on waits end when this is over.
    pub(super) fn stop_when(&mut self, over: &Interrupt) {
        self.line.limits.over = over.clone();
    }

    /// The rows of a short answer, in a single round trip.
    pub(super) fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Outcome<Vec<Row>> {
        let Self { engine: Some(engine), line, .. } = self else { return Err(Trouble::Closed) };
        line.wait(engine.query_typed(sql, parameters))
    }

    /// The only row of an answer, in a single round trip.
    pub(super) fn query_one(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Outcome<Row> {
        let Self { engine: Some(engine), line, .. } = self else { return Err(Trouble::Closed) };
        line.wait(engine.query_typed_one(sql, parameters))
    }

    /// Executes statements, prepares another, and asks questions: all in a single round trip.
    pub(super) fn begin(
        &mut self,
        statements: &str,
        prepared: &str,
        questions: &[Question<'_>],
    ) -> Outcome<(Outcome<Statement>, Vec<Outcome<Row>>)> {
        let Self { engine: Some(engine), line, .. } = self else { return Err(Trouble::Closed) };
        line.wait(async {
            // What is polled first goes out first.
            let (executed, prepared, answers) =
                join3(engine.batch_execute(statements), engine.prepare(prepared), answers(engine, questions)).await;
            executed.map(|()| (prepared.map_err(Trouble::from), answers))
        })
    }

    /// Asks questions, all in a single round trip.
    pub(super) fn ask_all(&mut self, questions: &[Question<'_>]) -> Outcome<Vec<Outcome<Row>>> {
        let Self { engine: Some(engine), line, .. } = self else { return Err(Trouble::Closed) };
        line.wait(async { Ok(answers(engine, questions).await) })
    }

    /// The rows of an answer one by one.
    pub(super) fn query_raw(&mut self, sql: &str) -> Outcome<Rows<'_>> {
        let Self { engine: Some(engine), line, .. } = self else { return Err(Trouble::Closed) };
        let stream = line.wait(engine.query_typed_raw(sql, std::iter::empty::<(&(dyn ToSql + Sync), Type)>()))?;
        Ok(Rows { line, stream: Box::pin(stream) })
    }
}

impl Client {
    /// Sends a query, whose answer is waited for later: answers come in the order of the queries.
    pub(super) fn ask(&mut self, statement: &Statement, parameters: Parameters) -> Outcome<Asked> {
        let Self { engine: Some(engine), .. } = self else { return Err(Trouble::Closed) };
        let (engine, statement) = (Arc::clone(engine), statement.clone());
        let mut answer: Answering = Box::pin(async move { engine.query_raw(&statement, parameters).await });
        // It is in the connection's hands after it was polled once, and goes out while anything is waited for.
        Ok(match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Asked::Sent(answer),
            Poll::Ready(stream) => Asked::Begun(Box::pin(stream?)),
        })
    }

    /// The next row of what was asked first; none at its end.
    pub(super) fn next(&mut self, asked: &mut Asked) -> Outcome<Option<Row>> {
        self.line.wait(async {
            loop {
                match asked {
                    Asked::Sent(answer) => *asked = Asked::Begun(Box::pin(answer.await?)),
                    Asked::Begun(rows) => return rows.next().await.transpose(),
                }
            }
        })
    }
}

/// A parameter of a short query, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A query that has one row as its answer.
pub(super) type Question<'a> = (&'a str, &'a [Parameter<'a>]);

async fn answers(engine: &tokio_postgres::Client, questions: &[Question<'_>]) -> Vec<Outcome<Row>> {
    let answers = join_all(questions.iter().map(|(sql, parameters)| engine.query_typed_one(sql, parameters))).await;
    answers.into_iter().map(|answer| answer.map_err(Trouble::from)).collect()
}

/// A query's parameters, for as long as it takes.
pub(super) type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;
type Answering = Pin<Box<dyn Future<Output = Answer<RowStream>> + Send>>;

/// A query that was sent.
pub(super) enum Asked {
    /// Nothing has come.
    Sent(Answering),
    /// Rows come.
    Begun(Pin<Box<RowStream>>),
}

impl Drop for Client {
    fn drop(&mut self) {
        // The connection says good-bye once nobody can ask it for anything any more.
        self.engine = None;
        self.line.close();
    }
}

/// Rows that arrive one by one.
pub(super) struct Rows<'a> {
    line: &'a mut Line,
    stream: Pin<Box<RowStream>>,
}

impl Rows<'_> {
    /// The next row; none at the end.
    pub(super) fn next(&mut self) -> Outcome<Option<Row>> {
        let stream = &mut self.stream;
        self.line.wait(async { stream.next().await.transpose() })
    }
}

/// Where bytes come and go, and who waits for them.
pub(super) struct Line {
    /// There until the end; never waited for then, because it may be looking up a name.
    runtime: Option<Runtime>,
    /// None before it is made, and once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = Answer<()>> + Send>>>,
    limits: Limits,
}

impl Line {
    /// Carries this connection from now on.
    pub(super) fn carry(&mut self, connection: Connection<Wire, Wire>) {
        self.connection = Some(Box::pin(connection));
    }

    /// Waits until the work is done, which needs no connection, or may not be waited for any longer.
    pub(super) fn run<T>(&mut self, work: impl Future<Output = T>) -> Outcome<T> {
        let Self { runtime: Some(runtime), limits, .. } = self else { return Err(Trouble::Closed) };
        if limits.is_stopped() {
            return Err(Trouble::Interrupted);
        }
        let mut work = pin!(work);
        runtime.block_on(async {
            let mut watch = Watch::over(limits);
            poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(value) => Poll::Ready(Ok(value)),
                Poll::Pending => watch.poll(cx).map(Err),
            })
            .await
        })
    }

    /// Waits until the work is done, which needs the connection, or may not be waited for any longer.
    pub(super) fn wait<T>(&mut self, work: impl Future<Output = Answer<T>>) -> Outcome<T> {
        let Self { runtime: Some(runtime), connection, limits } = self else { return Err(Trouble::Closed) };
        if limits.is_stopped() {
            return Err(Trouble::Interrupted);
        }
        let mut work = pin!(work);
        runtime.block_on(async {
            let mut watch = Watch::over(limits);
            poll_fn(|cx| {
                let ended = poll_connection(connection, cx);
                match (work.as_mut().poll(cx), ended) {
                    (Poll::Ready(Ok(value)), _) => return Poll::Ready(Ok(value)),
                    // How the connection ended says more than that it did.
                    (Poll::Ready(Err(error)), Some(Err(reason))) if error.is_closed() => {
                        return Poll::Ready(Err(reason.into()));
                    }
                    (Poll::Ready(Err(error)), _) => return Poll::Ready(Err(error.into())),
                    (Poll::Pending, Some(Err(reason))) => return Poll::Ready(Err(reason.into())),
                    (Poll::Pending, _) if connection.is_none() => return Poll::Ready(Err(Trouble::Closed)),
                    (Poll::Pending, _) => {}
                }
                watch.poll(cx).map(Err)
            })
            .await
        })
    }

    /// Ends the connection in good order, if that is quick; another one can be made.
    pub(super) fn end(&mut self) {
        if let (Some(runtime), Some(connection)) = (&self.runtime, self.connection.take()) {
            let _ = runtime.block_on(async { tokio::time::timeout(GOOD_BYE, connection).await });
        }
    }

    /// Ends all.
    fn close(&mut self) {
        self.end();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lets bytes come and go; how the connection ended, if it just did.
fn poll_connection(
    connection: &mut Option<Pin<Box<dyn Future<Output = Answer<()>> + Send>>>,
    cx: &mut Context<'_>,
) -> Option<Answer<()>> {
    match connection.as_mut()?.as_mut().poll(cx) {
        Poll::Ready(outcome) => {
            *connection = None;
            Some(outcome)
        }
        Poll::Pending => None,
    }
}

/// Looks at clock and interrupt while nothing comes.
struct Watch<'a> {
    limits: &'a Limits,
    /// Since when nothing has come, and the end of the slice; none before the first wait.
    slice: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<'a> Watch<'a> {
    fn over(limits: &'a Limits) -> Self {
        Self { limits, slice: None }
    }

    /// Why the wait is over, if it is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Trouble> {
        let (since, slice) = self.slice.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(SLICE))));
        loop {
            if self.limits.is_stopped() {
                return Poll::Ready(Trouble::Interrupted);
            }
            if since.elapsed() >= self.limits.silence {
                return Poll::Ready(Trouble::Silence(self.limits.silence));
            }
            if slice.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            slice.as_mut().reset((Instant::now() + SLICE).into());
        }
    }
}

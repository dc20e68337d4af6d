//! The UDP socket with the system's offloads, and a timer finer than the poll's: the only file here that knows either.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use noq_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::Tokens;
use super::limits::{ADDRESSES_MAX, PACING_FLOOR, RECEIVE_WINDOW_FIRST_BYTES};

/// Datagrams, or runs of them joined by the system, read in one call.
const BATCH_COUNT: usize = 8;
/// The longest datagram or run.
const BUFFER_BYTES: usize = 64 << 10;
/// The longest payload of a datagram, and of a run that the system cuts.
const PAYLOAD_BYTES_MAX: usize = 65_507;
/// Largest datagrams that are tried: above it the system's own largest is too near.
const MTU_MAX: u16 = 65_000;
/// What every path carries.
const MTU_MIN: u16 = 1_200;
/// Bytes asked of the system for its buffers; it gives less if it is told so.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The poll's timeouts are whole milliseconds: what is nearer than this is left to the timer.
const FINE_TIMER: Duration = Duration::from_millis(5);

/// One datagram that came.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Where it came from.
    pub from: SocketAddr,
    /// At which of our addresses it arrived.
    pub to: Option<IpAddr>,
    /// Its mark of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The socket and its timer.
#[derive(Debug)]
pub struct Socket {
    udp: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    timer: OwnedFd,
    /// When the timer fires next.
    armed: Option<Instant>,
    is_readable: bool,
    is_writable: bool,
    buffers: Box<[u8]>,
    /// What the system had no room for.
    unsent: Option<(Transmit, Vec<u8>)>,
}

impl Socket {
    /// Binds the socket and puts it and its timer on the poll.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(registry: &Registry, tokens: Tokens, bind: SocketAddr) -> io::Result<Self> {
        let mut udp = mio::net::UdpSocket::bind(bind)?;
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        // Smaller buffers cost speed, not correctness.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&udp), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&udp), SOCKET_BUFFER_BYTES);
        let local = udp.local_addr()?;
        registry.register(&mut udp, tokens.socket, Interest::READABLE | Interest::WRITABLE)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), tokens.timer, Interest::READABLE)?;
        Ok(Self {
            udp,
            state,
            local,
            timer,
            armed: None,
            is_readable: true,
            is_writable: true,
            buffers: vec![0; BATCH_COUNT * BUFFER_BYTES].into_boxed_slice(),
            unsent: None,
        })
    }

    /// The port it is bound to.
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// The addresses at which a peer may find this socket: this machine's own if the chat is on it, and those of its
    /// interfaces.
    pub fn addresses(&self, chat_address: IpAddr) -> Vec<SocketAddr> {
        if !self.local.ip().is_unspecified() {
            return vec![self.local];
        }
        let mut ips = Vec::new();
        if chat_address.is_loopback() {
            ips.extend([chat_address, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        for interface in if_addrs::get_if_addrs().unwrap_or_default() {
            let ip = interface.ip();
            // An address that holds on one link only says nothing without the name that the peer has for the link.
            let is_bound_to_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !ip.is_loopback() && !is_bound_to_link {
                ips.push(ip);
            }
        }
        let mut known = Vec::new();
        for ip in ips {
            let address = SocketAddr::new(ip, self.local.port());
            if self.can_reach(address) && !known.contains(&address) && known.len() < ADDRESSES_MAX {
                known.push(address);
            }
        }
        known
    }

    /// Whether the socket's family reaches an address.
    fn can_reach(&self, address: SocketAddr) -> bool {
        address.is_ipv4() || self.local.is_ipv6()
    }

    /// Notes what the poll reported of the socket.
    pub fn note_ready(&mut self, event: &mio::event::Event) {
        self.is_readable |= event.is_readable() || event.is_error();
        self.is_writable |= event.is_writable() || event.is_error();
    }

    /// Whether datagrams may be waiting.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Takes a batch of datagrams.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) {
        let mut metas = [RecvMeta::default(); BATCH_COUNT];
        let mut chunks = self.buffers.chunks_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_COUNT] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let (udp, state) = (&self.udp, &self.state);
        let count = match udp.try_io(|| state.recv(UdpSockRef::from(udp), &mut slices, &mut metas)) {
            Ok(count) => count,
            Err(error) => {
                // Other errors tell of a datagram sent earlier, and the next call goes on.
                self.is_readable = error.kind() != io::ErrorKind::WouldBlock;
                return;
            }
        };
        for (meta, buffer) in metas.iter().zip(self.buffers.chunks(BUFFER_BYTES)).take(count) {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let to = meta.dst_ip.map(|ip| ip.to_canonical());
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            let run = buffer.get(..meta.len).unwrap_or_default();
            for bytes in run.chunks(meta.stride.max(1)) {
                take(Datagram { from, to, ecn, bytes });
            }
        }
    }

    /// How many datagrams of `mtu` bytes the system takes in one call.
    pub fn segments_max(&self, mtu: u16) -> usize {
        self.state.max_gso_segments().min(PAYLOAD_BYTES_MAX / usize::from(mtu.max(1))).max(1)
    }

    /// Sends what waits; true if nothing waits any more.
    pub fn flush(&mut self) -> bool {
        match self.unsent.take() {
            Some((transmit, bytes)) => self.send(transmit, bytes).is_some(),
            None => true,
        }
    }

    /// Sends one transmission, or keeps it if the system has no room for it now; then [`Socket::flush`] is due.
    ///
    /// Gives the buffer back once it is free again.
    pub fn send(&mut self, transmit: Transmit, bytes: Vec<u8>) -> Option<Vec<u8>> {
        if !self.can_reach(transmit.destination) {
            return Some(bytes);
        }
        let outgoing = quinn_udp::Transmit {
            destination: self.mapped(transmit.destination),
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes.get(..transmit.size).unwrap_or_default(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let (udp, state) = (&self.udp, &self.state);
        match udp.try_io(|| state.try_send(UdpSockRef::from(udp), &outgoing)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                self.unsent = Some((transmit, bytes));
                None
            }
            // Whatever else goes wrong, a probe larger than the path, a port that nobody has, is a lost datagram.
            _ => Some(bytes),
        }
    }

    /// Whether the system may have room.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// The largest datagram that this machine can send towards an address, in bytes of payload.
    pub fn mtu_towards(&self, address: SocketAddr) -> u16 {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let probe = || -> io::Result<u32> {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.connect(address)?;
            Ok(match address {
                SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket)?.saturating_sub(28),
                SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket)?.saturating_sub(48),
            })
        };
        let mtu = probe().unwrap_or(u32::from(MTU_MIN));
        u16::try_from(mtu).unwrap_or(u16::MAX).clamp(MTU_MIN, MTU_MAX)
    }

    /// How much a peer may send before it is read, so that the system's buffer does not overflow.
    pub fn first_window_bytes(&self) -> u32 {
        let buffer = self.state.recv_buffer_size(UdpSockRef::from(&self.udp)).unwrap_or_default();
        u32::try_from(buffer / 2).unwrap_or(u32::MAX).clamp(128 << 10, RECEIVE_WINDOW_FIRST_BYTES)
    }

    /// Sets the timer for a deadline that is too near for the poll's own timeout.
    pub fn arm(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline.filter(|deadline| *deadline < now + FINE_TIMER) else { return };
        let deadline = deadline.max(now + PACING_FLOOR);
        if self.armed.is_some_and(|armed| armed > now && armed <= deadline) {
            return;
        }
        let nanoseconds = (deadline - now).subsec_nanos();
        let after = Timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never, it_value: after };
        // Should it fail, the poll's own timeout is a little later.
        if rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting).is_ok() {
            self.armed = Some(deadline);
        }
    }

    /// Notes that the timer fired.
    pub fn note_timer(&mut self) {
        self.armed = None;
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }

    /// An IPv4 address as a socket for both families takes it.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) if self.local.is_ipv6() => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }
}

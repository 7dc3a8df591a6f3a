"""What happened, as values: the layers below report facts, :mod:`proxy.telemetry` shows and counts them.

Imports no more than the nouns, does no I/O, reads no clock. Instants are seconds since the epoch (UTC); spans
of time end in ``_s`` or ``_ms``, sizes are bytes. Each is had from the package, whatever module it is in.
"""

from proxy.facts.fact import Emit as Emit
from proxy.facts.fact import Fact as Fact
from proxy.facts.fact import Level as Level
from proxy.facts.grants import ClientSecretFellBack as ClientSecretFellBack
from proxy.facts.grants import ConsentFailed as ConsentFailed
from proxy.facts.grants import GrantConnected as GrantConnected
from proxy.facts.grants import GrantEndsSoon as GrantEndsSoon
from proxy.facts.grants import GrantNeedsReauth as GrantNeedsReauth
from proxy.facts.grants import GrantRevoked as GrantRevoked
from proxy.facts.grants import Refreshed as Refreshed
from proxy.facts.grants import RefreshFailed as RefreshFailed
from proxy.facts.grants import RefreshStarted as RefreshStarted
from proxy.facts.grants import ScopesMissing as ScopesMissing
from proxy.facts.grants import SealedValueFailed as SealedValueFailed
from proxy.facts.notifications import NotifyFailed as NotifyFailed
from proxy.facts.notifications import NotifyHeldBack as NotifyHeldBack
from proxy.facts.notifications import NotifySent as NotifySent
from proxy.facts.operators import AdminLockedOut as AdminLockedOut
from proxy.facts.operators import AdminLoggedIn as AdminLoggedIn
from proxy.facts.operators import AdminLoggedOut as AdminLoggedOut
from proxy.facts.operators import AdminLoginFailed as AdminLoginFailed
from proxy.facts.operators import ConfigReloadAsked as ConfigReloadAsked
from proxy.facts.operators import LinkCreated as LinkCreated
from proxy.facts.operators import LinkOpened as LinkOpened
from proxy.facts.operators import LinkRefused as LinkRefused
from proxy.facts.process import CertificateFailed as CertificateFailed
from proxy.facts.process import CertificateReloaded as CertificateReloaded
from proxy.facts.process import ConfigReloaded as ConfigReloaded
from proxy.facts.process import ConfigReloadFailed as ConfigReloadFailed
from proxy.facts.process import LineWithheld as LineWithheld
from proxy.facts.process import ProxyDraining as ProxyDraining
from proxy.facts.process import ProxyStarted as ProxyStarted
from proxy.facts.process import ProxyStopped as ProxyStopped
from proxy.facts.process import TaskCrashed as TaskCrashed
from proxy.facts.process import WorkerDied as WorkerDied
from proxy.facts.process import WorkerStarted as WorkerStarted
from proxy.facts.requests import AddressRefused as AddressRefused
from proxy.facts.requests import CircuitClosed as CircuitClosed
from proxy.facts.requests import CircuitOpened as CircuitOpened
from proxy.facts.requests import HandshakeFailed as HandshakeFailed
from proxy.facts.requests import PolicyWouldRefuse as PolicyWouldRefuse
from proxy.facts.requests import RequestAmbiguous as RequestAmbiguous
from proxy.facts.requests import RequestCrashed as RequestCrashed
from proxy.facts.requests import RequestFinished as RequestFinished
from proxy.facts.requests import RequestTraced as RequestTraced
from proxy.facts.requests import Send as Send
from proxy.facts.requests import TracesLost as TracesLost
from proxy.facts.requests import TracesTaken as TracesTaken
from proxy.facts.stored import AuditAnchored as AuditAnchored
from proxy.facts.stored import AuditFailed as AuditFailed
from proxy.facts.stored import JournalFailed as JournalFailed
from proxy.facts.stored import JournalReplayed as JournalReplayed
from proxy.facts.stored import StoreFailed as StoreFailed
from proxy.facts.stored import StoreRecovered as StoreRecovered
from proxy.facts.stored import TenantMissing as TenantMissing
from proxy.facts.stored import TenantsLoaded as TenantsLoaded

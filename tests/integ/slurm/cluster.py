"""A one-host SLURM with accounting, from Debian's packages, all of its state in one folder.

munge, MariaDB, slurmdbd, slurmctld and slurmd run as root on free ports of 127.0.0.1; each is stopped by its pid, in the
opposite order, and ends with the process that started it. Nothing in /etc or /var is read or written.
"""
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
import typing as tp
from pathlib import Path

PACKAGES = {"munged": "munge", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server",
            "mariadb": "mariadb-client", "slurmdbd": "slurmdbd", "slurmctld": "slurmctld", "slurmd": "slurmd",
            "sbatch": "slurm-client"}
# States in which a job is over; REQUEUED, PREEMPTED and the like are not among them.
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "DEADLINE", "BOOT_FAIL")
KILL_WAIT = 30      # seconds between SIGTERM and SIGKILL, SLURM's default


def find(program: str) -> tp.Optional[str]:
    """Path of a program; daemons lie in sbin, which a user's PATH may lack."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing() -> list[str]:
    """Debian packages that this machine lacks for a cluster."""
    return sorted({package for program, package in PACKAGES.items() if find(program) is None})


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(condition: tp.Callable[[], tp.Any], what: str, seconds: float = 60) -> tp.Any:
    """The first true value of `condition`.

    Raises:
        TimeoutError: there was none.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.25)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


def end_with_parent() -> None:
    """In a child: have the kernel end it when its parent dies, however that happens (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Cluster:
    """SLURM below `root`.

    Args:
        root: a folder that does not exist yet, with a short path (it holds sockets).
        cpus: of the one node, whatever the machine has.
    """

    def __init__(self, root: Path, cpus: int = 2) -> None:
        self.root, self.cpus = root, cpus
        self.host = socket.gethostname().split(".")[0]
        self.sql, self.dbd, self.ctl, self.node = free_ports(4)
        self.started: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to talk to this cluster."""
        return {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a command of SLURM's; an error shows what it printed."""
        done = subprocess.run(command, env={**os.environ, **self.environment}, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, cwd=self.root)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
        return done.stdout.strip()

    def start(self) -> None:
        self.root.mkdir(mode=0o755)
        for folder in ("munge", "mysql", "ctld", "slurmd"):
            (self.root / folder).mkdir(mode=0o755)
        self._munge()
        self._database()
        self._configure()
        self._daemon("slurmdbd", "slurmdbd", "-D")
        wait_for(lambda: self.host_answers(self.dbd), self._log("slurmdbd"))
        wait_for(lambda: "test" in self.run("sacctmgr", "-i", "add", "cluster", "test", check=False)
                 or "test" in self.run("sacctmgr", "-nP", "show", "cluster", check=False), self._log("slurmdbd"))
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        wait_for(lambda: "UP" in self.run("scontrol", "ping", check=False), self._log("slurmctld"))
        self._daemon("slurmd", "slurmd", "-D")
        wait_for(lambda: self.run("sinfo", "-h", "-o", "%t", check=False) == "idle", self._log("slurmd"))

    def stop(self) -> None:
        """Cancel what runs, then stop the daemons by pid, the last first."""
        if "slurmd" in self.started:
            self.run("scancel", "--state=PENDING", f"--user={os.environ.get('USER', 'root')}", check=False)
            self.run("scancel", "-f", f"--user={os.environ.get('USER', 'root')}", check=False)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not self.run("squeue", "-h", check=False), "the queue is empty", KILL_WAIT + 15)
        for name in reversed(self.started):
            self._stop(name)

    def _stop(self, name: str) -> None:
        try:
            pid = int((self.root / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError):
            return
        try:
            wait_for(lambda: not alive(pid), name, 30)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)

    def _daemon(self, name: str, *command: str) -> None:
        """Start one in the background; its output goes to a log, its pid to a file."""
        program = find(command[0])
        assert program is not None
        with open(self.root / f"{name}.log", "ab") as log:
            process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       env={**os.environ, **self.environment}, cwd=self.root, start_new_session=True,
                                       preexec_fn=end_with_parent)
        (self.root / f"{name}.pid").write_text(str(process.pid))
        self.started.append(name)

    def _log(self, name: str) -> str:
        return f"{name} does not answer; see {self.root / name}.log"

    def host_answers(self, port: int) -> bool:
        with socket.socket() as one:
            one.settimeout(1)
            return one.connect_ex(("127.0.0.1", port)) == 0

    def _munge(self) -> None:
        key = self.root / "munge" / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        home = self.root / "munge"
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={home}/socket",
                     f"--pid-file={home}/pid", f"--log-file={home}/log", f"--seed-file={home}/seed")
        wait_for((home / "socket").exists, self._log("munged"))

    def _database(self) -> None:
        home = self.root / "mysql"
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={home}", "--user=root",
                        "--auth-root-authentication-method=socket", "--skip-test-db"],
                       check=True, capture_output=True, timeout=120)
        self._daemon("mariadbd", "mariadbd", "--no-defaults", f"--datadir={home}", "--user=root",
                     f"--socket={home}/socket", f"--pid-file={home}/pid", "--bind-address=127.0.0.1", f"--port={self.sql}",
                     "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M")
        wait_for((home / "socket").exists, self._log("mariadbd"))
        sql = ("CREATE DATABASE slurm_acct_db; CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';"
               "CREATE USER 'slurm'@'localhost' IDENTIFIED BY 'slurm';"
               "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';")
        command = ["mariadb", "--no-defaults", f"--socket={home}/socket", "-u", "root", "-e", sql]
        wait_for(lambda: subprocess.run(command, capture_output=True).returncode == 0, self._log("mariadbd"))

    def _configure(self) -> None:
        root = self.root
        auth = f"AuthType=auth/munge\nAuthInfo=socket={root}/munge/socket,cred_expire=5\n"
        settings = root / "slurmdbd.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"{auth}DbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={self.dbd}\nSlurmUser=root\n"
            f"PidFile={root}/slurmdbd.own.pid\nLogFile={root}/slurmdbd.log\nStorageType=accounting_storage/mysql\n"
            f"StorageHost=127.0.0.1\nStoragePort={self.sql}\nStorageUser=slurm\nStoragePass=slurm\n"
            "StorageLoc=slurm_acct_db\n")
        settings = root / "gres.conf"      # two GPU slots on devices that every machine has
        settings.write_text("".join(f"NodeName={self.host} Name=gpu File=/dev/{device}\n" for device in ("zero", "full")))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 ** 20
        (root / "slurm.conf").write_text(
            f"ClusterName=test\nSlurmctldHost={self.host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n{auth}"
            f"SlurmctldPort={self.ctl}\nSlurmdPort={self.node}\nStateSaveLocation={root}/ctld\n"
            f"SlurmdSpoolDir={root}/slurmd\nSlurmctldPidFile={root}/slurmctld.own.pid\nSlurmdPidFile={root}/slurmd.own.pid\n"
            f"SlurmctldLogFile={root}/slurmctld.log\nSlurmdLogFile={root}/slurmd.log\n"
            "ProctrackType=proctrack/pgid\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n"
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSchedulerType=sched/backfill\n"
            "SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=5\nSlurmdParameters=config_overrides\n"
            f"ReturnToService=2\nKillWait={KILL_WAIT}\nMinJobAge=300\nJobRequeue=1\n"
            "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={self.dbd}\nAccountingStoragePass={root}/munge/socket\nAccountingStorageTRES=gres/gpu\nJobAcctGatherType=jobacct_gather/none\n"
            f"GresTypes=gpu\nNodeName={self.host} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory={memory} Gres=gpu:2 "
            "State=UNKNOWN\nPartitionName=tiny Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=NO\n")

    def states(self, job: str) -> dict[str, str]:
        """State of a job, or of each member of an array, by id: `{"7_0": "RUNNING", …}`."""
        lines = self.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State").splitlines()
        return {name: state.split()[0] for name, state in (line.split("|") for line in lines if "|" in line)}

    def started_at(self, job: str) -> str:
        """When the first member of a job began, as SLURM writes times (which sort)."""
        return min(self.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "Start").split())

    def ended_at(self, job: str) -> str:
        """When the last member of a job ended."""
        return max(self.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "End").split())

    def wait(self, job: str, seconds: float, members: int = 1) -> dict[str, str]:
        """States of a job once it is over."""
        def over() -> dict[str, str]:
            states = self.states(job)
            done = len(states) >= members and all(state in FINISHED for state in states.values())
            return states if done else {}
        try:
            return wait_for(over, f"job {job} is over", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.states(job)}\n{self.run('squeue', check=False)}") from None


def alive(pid: int) -> bool:
    """Whether a process runs; a dead child of ours is reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

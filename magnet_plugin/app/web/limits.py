"""What one visitor of the page may ask for."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the page, which keep one visitor from using up the machine.

    Attributes:
        max_seconds: length of a generated clip, and of a recording that is edited, in seconds.
        max_upload_mb: size of an uploaded file in megabytes.
        max_clips: clips of one request.
        max_text: characters of a text.
        max_steps: decoding steps of one window, for settings that are loaded from a file.
        max_waiting: requests that may wait for their turn.
        max_kept: clips that are kept for a visitor; the oldest that is no favourite makes room.
    Raises:
        ValueError: a limit is not above 0.
    """
    max_seconds: float = 120.0
    max_upload_mb: float = 50.0
    max_clips: int = 12
    max_text: int = 500
    max_steps: int = 400
    max_waiting: int = 8
    max_kept: int = 40

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}={getattr(self, field.name)} must be above 0")

    @property
    def max_bytes(self) -> int:
        """Size of an uploaded file in bytes."""
        return round(self.max_upload_mb * 1e6)

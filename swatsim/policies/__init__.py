"""Which values survive: score x granularity x allocation x schedule. Pure; one method a file."""

from swatsim.policies.interface import Policy, Site
from swatsim.policies.swat_u import SwatU
from swatsim.policies.topk import keep_count, topk_mask

__all__ = ["Policy", "Site", "SwatU", "keep_count", "topk_mask"]

"""What a candidate costs against its base: tokens per second and memory, measured."""

from surgeon.cost.measure import measure_cost as measure_cost
from surgeon.cost.result import Cost as Cost

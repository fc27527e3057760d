"""The managers, one for each kind of entity: create, get, update, delete."""

from server.database.managers.entity_manager import EntityManager
from server.database.managers.logical_worker_manager import Instances, LogicalWorkerManager
from server.database.managers.physical_worker_manager import PhysicalWorkerManager
from server.database.managers.run_manager import RunManager
from server.database.managers.study_manager import StudyManager

__all__ = ["EntityManager", "Instances", "LogicalWorkerManager", "PhysicalWorkerManager", "RunManager", "StudyManager"]

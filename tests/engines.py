"""Fixtures that start Ray and Spark on this machine; `conftest.py` hands them to the tests."""

import os
import shutil
import sys

import pytest


@pytest.fixture(scope="session")
def local_ray():
    ray = pytest.importorskip("ray", reason="needs odmt-sdk[ray]")

    def same_precision_on_every_cpu():  # as in conftest.py, which patches this process alone
        from odmt_sdk.features.extraction import pretrained_encoders

        pretrained_encoders.computes_in_bfloat16 = lambda device: False

    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"worker_process_setup_hook": same_precision_on_every_cpu},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def local_spark():
    sql = pytest.importorskip("pyspark.sql", reason="needs odmt-sdk[spark]")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java 17 or newer, for example the package openjdk-17-jre-headless")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    yield session
    session.stop()

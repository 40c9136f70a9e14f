"""
Pika, by its BlockingConnection: one message at a time, as programs with Flask-Pika publish. It is a contender like the
others (see contender.ts). It receives its commands as lines of JSON, and answers with such lines.
"""
import array
import json
import resource
import sys
import time
import traceback

import pika

PROPERTIES = pika.BasicProperties(delivery_mode=1)


class Confirm:
    def __init__(self, setting):
        self.connection = pika.BlockingConnection(pika.URLParameters(setting["url"]))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.queue = setting["queue"]
        self.content = b"x" * setting["size"]

    def run(self, messages, latencies):
        publish, queue, content = self.channel.basic_publish, self.queue, self.content
        for _ in range(messages):
            start = time.perf_counter()
            # Raises if the broker refuses it.
            publish("", queue, content, PROPERTIES)
            latencies.append(time.perf_counter() - start)


class Publish(Confirm):
    def __init__(self, setting):
        super().__init__(setting)
        self.channel = self.connection.channel()

    def run(self, messages, latencies):
        publish, queue, content = self.channel.basic_publish, self.queue, self.content
        for _ in range(messages):
            publish("", queue, content, PROPERTIES)
        self.channel.queue_declare(queue, passive=True)


class Consume(Confirm):
    def __init__(self, setting):
        super().__init__(setting)
        self.prefetch = setting["prefetch"]

    def run(self, messages, latencies):
        self.channel = self.connection.channel()
        self.channel.basic_qos(prefetch_count=self.prefetch)
        left = messages

        def on_message(channel, method, _properties, _body):
            nonlocal left
            channel.basic_ack(method.delivery_tag)
            left -= 1
            if left == 0:
                channel.stop_consuming()

        self.channel.basic_consume(self.queue, on_message)
        self.channel.start_consuming()

    def settle(self):
        self.channel.close()


KINDS = {"confirm": Confirm, "publish": Publish, "consume": Consume}


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measured(contender, messages):
    latencies = array.array("d")
    before, start = cpu(), time.perf_counter()
    contender.run(messages, latencies)
    elapsed, used = time.perf_counter() - start, cpu() - before
    ran = {"elapsed": elapsed, "cpu": used * 1e6}
    if latencies:
        ordered = sorted(latencies)
        ran["latency"] = {
            "p50": ordered[len(ordered) // 2] * 1e3,
            "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3,
        }
    return ran


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def answer(**fields):
    print(json.dumps(fields), flush=True)


def main():
    contender = None
    answer(value="ready")
    for line in sys.stdin:
        command = json.loads(line)
        tag = command["_tag"]
        try:
            if tag == "Prepare":
                contender = KINDS[command["kind"]](command["setting"])
                answer(value=None)
            elif tag == "Run":
                answer(value=measured(contender, command["messages"]))
            elif tag == "Settle":
                getattr(contender, "settle", lambda: None)()
                answer(value=None)
            elif tag == "Close":
                contender.connection.close()
                answer(value={"peak": peak()})
        except Exception:
            answer(error=traceback.format_exc())


main()

package org.example;

import org.words.Words;

public final class Service {
  record Greeting(String text, long heap) {}

  public static void main(String[] args) {
    var greeting = new Greeting(Words.greet(String.join(" ", args)), Runtime.getRuntime().maxMemory() >> 20);
    System.out.println(greeting.text() + " " + (greeting.heap() <= 64) + " " + System.getProperty("user.name"));
  }
}
